// Labelled inputs: what is typed goes to Python as text, what is wrong stands at its field.
// Each widget has a module of its own, so that counting would give the same names twice; randomUUID is not there without https.
const unique = () => `sp${Math.random().toString(36).slice(2)}`;

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function choice(field, id) {
  const options = field.options.map(([value, text]) => element("option", { value }, text));
  return element("select", { id }, ...options);
}

function box(field, id) {
  const number = field.kind === "number";
  return element("input", { id, type: "text", inputmode: number ? "decimal" : null, autocomplete: "off", spellcheck: "false", maxlength: 200, placeholder: field.placeholder || null });
}

function slider(field) {
  return element("input", { type: "range", min: field.low, max: field.high, step: field.step, "aria-label": `${field.label}, slider` });
}

// One field: its nodes, and how to read it, fill it and say what is wrong.
function make(field, changed) {
  const id = unique();
  const check = field.kind === "check";
  const input = check ? element("input", { id, type: "checkbox" }) : field.kind === "choice" ? choice(field, id) : box(field, id);
  const range = field.slider ? slider(field) : null;
  const unit = field.unit ? [" ", element("small", {}, `(${field.unit})`)] : [];
  const label = element("label", { for: id }, field.label, ...unit);
  const help = field.help ? element("p", { class: "sp-help", id: `${id}h` }, field.help) : null;
  const wrong = element("p", { class: "sp-wrong", id: `${id}e` });
  const row = element("div", { class: "sp-input" }, ...[input, range].filter(Boolean));
  const parts = check ? [element("div", { class: "sp-check" }, input, label), help, wrong] : [label, row, help, wrong];
  const node = element("div", { class: "sp-field" }, ...parts.filter(Boolean));

  const follow = () => {
    if (!range) return;
    const number = Number(input.value.trim());
    const there = input.value.trim() !== "" && Number.isFinite(number);
    range.value = there ? number : (field.low + field.high) / 2;
    range.classList.toggle("sp-unset", !there);
    range.setAttribute("aria-valuetext", there ? input.value : "not set");
  };
  const problem = (text) => {
    wrong.textContent = text || "";
    wrong.hidden = !text;
    const told = [help && help.id, text && wrong.id].filter(Boolean).join(" ");
    if (told) input.setAttribute("aria-describedby", told);
    else input.removeAttribute("aria-describedby");
    if (text) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  };
  const read = () => (check ? (input.checked ? "yes" : "") : input.value);
  const fill = (value) => {
    if (read() === value) return;
    if (check) input.checked = value === "yes";
    else input.value = value;
    follow();
  };
  input.addEventListener(check || field.kind === "choice" ? "change" : "input", () => {
    follow();
    changed();
  });
  if (range)
    range.addEventListener("input", () => {
      input.value = range.value;
      follow();
      changed();
    });
  follow();
  problem("");
  return { name: field.name, node, read, fill, problem };
}

function render({ model, el }) {
  const grid = element("div", { class: "sp-fields" });
  let fields = [];
  let timer = null;
  const send = () => {
    timer = null;
    model.set("values", Object.fromEntries(fields.map((field) => [field.name, field.read()])));
    try {
      model.save_changes();
    } catch {
      // nobody is there any more; the page says so above
    }
  };
  const changed = () => {
    clearTimeout(timer);
    timer = setTimeout(send, 40);
  };
  const fill = () => {
    if (timer !== null) return; // what is being typed is newer
    const values = model.get("values");
    for (const field of fields) field.fill(values[field.name] ?? "");
  };
  const tell = () => {
    const problems = model.get("problems");
    for (const field of fields) field.problem(problems[field.name]);
  };
  const build = () => {
    grid.style.setProperty("--columns", model.get("columns"));
    fields = model.get("fields").map((field) => make(field, changed));
    grid.replaceChildren(...fields.map((field) => field.node));
    fill();
    tell();
  };
  model.on("change:fields", build);
  model.on("change:values", fill);
  model.on("change:problems", tell);
  build();
  el.append(grid);
  return () => {
    clearTimeout(timer);
    model.off("change:fields", build);
    model.off("change:values", fill);
    model.off("change:problems", tell);
  };
}
export default { render };
