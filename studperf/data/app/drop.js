// A file comes in: dropped or chosen, refused here when it is too large, sent in pieces, each asked for by Python.
const PIECE = 512 * 1024;

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MB`;

function render({ model, el }) {
  const id = `sp${Math.random().toString(36).slice(2)}`;
  const input = element("input", { type: "file", id, class: "sp-file", accept: model.get("accept"), "aria-describedby": `${id}m` });
  const button = element("label", { for: id, class: "sp-button sp-primary" }, model.get("label"));
  const hint = element("span", { class: "sp-help" }, `or drop it here (${model.get("accept").replaceAll(",", ", ")}; up to ${megabytes(model.get("most"))})`);
  const bar = element("progress", { max: 1, value: 0, "aria-label": "Sending the file" });
  const told = element("p", { class: "sp-told", id: `${id}m`, role: "status" });
  const zone = element("div", { class: "sp-drop" }, input, button, hint, bar, told);
  let file = null;
  let number = 0; // of the file: while one is sent or read another can be chosen, and the newest counts
  bar.hidden = true;

  const say = (text) => {
    told.textContent = text;
    bar.hidden = true;
    file = null;
    input.value = "";
  };
  const refuse = (text) => {
    told.textContent = text; // a file that is on its way goes on
    input.value = "";
  };
  const take = (files) => {
    if (!files.length) return;
    if (files.length > 1) return refuse("One file at a time, please.");
    if (files[0].size > model.get("most"))
      return refuse(`${files[0].name} has ${megabytes(files[0].size)}; this page takes up to ${megabytes(model.get("most"))}. It was not sent.`);
    file = files[0];
    number += 1;
    bar.hidden = false;
    bar.value = 0;
    told.textContent = `Sending ${file.name} …`;
    model.send({ kind: "begin", number, name: file.name, size: file.size });
  };
  const receive = async (message) => {
    if (!file || message.number !== number) return; // of an older file
    if (message.kind === "done") return say(model.get("message"));
    try {
      const piece = await file.slice(message.at, message.at + PIECE).arrayBuffer();
      if (message.number !== number) return;
      bar.value = message.at / Math.max(file.size, 1);
      if (message.at + PIECE >= file.size) told.textContent = `Reading ${file.name} …`;
      model.send({ kind: "piece", number, at: message.at }, undefined, [piece]);
    } catch {
      if (message.number === number) say(`${file.name} cannot be read any more; perhaps it was moved or changed.`);
    }
  };
  const over = (on) => (event) => {
    event.preventDefault();
    zone.classList.toggle("sp-over", on);
  };
  input.addEventListener("change", () => take(input.files));
  zone.addEventListener("dragover", over(true));
  zone.addEventListener("dragleave", over(false));
  zone.addEventListener("drop", (event) => {
    over(false)(event);
    take(event.dataTransfer.files);
  });
  const message = () => {
    if (!file) told.textContent = model.get("message");
  };
  model.on("msg:custom", receive);
  model.on("change:message", message);
  message();
  el.append(zone);
  return () => {
    model.off("msg:custom", receive);
    model.off("change:message", message);
  };
}
export default { render };
