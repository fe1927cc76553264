// A button that asks Python for a file and saves it; nothing lies on the server.
function render({ model, el }) {
  const button = document.createElement("button");
  const told = document.createElement("span");
  button.type = "button";
  button.className = "sp-button";
  told.setAttribute("role", "status");
  told.className = "sp-told";
  const draw = () => {
    button.textContent = model.get("label");
    button.disabled = model.get("disabled");
  };
  const save = (name, content) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type: "application/octet-stream" }));
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };
  const receive = (message, buffers) => {
    if (message.kind === "file") save(message.name, buffers[0]);
    told.textContent = message.kind === "file" ? `Saved as ${message.name}` : message.text;
    button.removeAttribute("aria-busy");
  };
  button.addEventListener("click", () => {
    button.setAttribute("aria-busy", "true");
    told.textContent = "Preparing …";
    model.send({ kind: "ask" });
  });
  model.on("change:label change:disabled", draw);
  model.on("msg:custom", receive);
  draw();
  el.append(button, told);
  return () => {
    model.off("change:label change:disabled", draw);
    model.off("msg:custom", receive);
  };
}
export default { render };
