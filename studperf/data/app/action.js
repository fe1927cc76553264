// A button that calls a function in Python. One that takes itself away by it leaves the focus to the first control of its part.
function render({ model, el }) {
  const button = document.createElement("button");
  let pressed = false;
  button.type = "button";
  const draw = () => {
    button.textContent = model.get("label");
    button.className = model.get("primary") ? "sp-button sp-primary" : "sp-button";
    button.disabled = model.get("disabled");
  };
  button.addEventListener("click", () => {
    pressed = true;
    model.send({ kind: "press" });
  });
  const size = new ResizeObserver(() => {
    if (!pressed || button.getClientRects().length) return;
    pressed = false;
    if ([document.body, button].includes(document.activeElement)) button.closest(".studperf-panel")?.querySelector("input, select, button")?.focus();
  });
  size.observe(button);
  const names = "change:label change:primary change:disabled";
  model.on(names, draw);
  draw();
  el.append(button);
  return () => {
    size.disconnect();
    model.off(names, draw);
  };
}
export default { render };
