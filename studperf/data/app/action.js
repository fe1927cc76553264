// A button that calls a function in Python.
function render({ model, el }) {
  const button = document.createElement("button");
  button.type = "button";
  const draw = () => {
    button.textContent = model.get("label");
    button.className = model.get("primary") ? "sp-button sp-primary" : "sp-button";
    button.disabled = model.get("disabled");
  };
  button.addEventListener("click", () => model.send({ kind: "press" }));
  const names = "change:label change:primary change:disabled";
  model.on(names, draw);
  draw();
  el.append(button);
  return () => model.off(names, draw);
}
export default { render };
