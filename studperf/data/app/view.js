// A place for HTML that Python makes from escaped parts; it may be a region with a name, or be announced when it changes.
const QUIET = 700; // ms without a change before it is read out: a slider that moves would be read out at every step

function render({ model, el }) {
  const box = document.createElement("div");
  const told = document.createElement("div");
  const live = model.get("live");
  let timer = null;
  told.className = "sp-hidden";
  told.setAttribute("role", "status");
  const tell = () => {
    clearTimeout(timer);
    const text = box.innerText;
    if (text === told.textContent) return;
    told.textContent = "";
    timer = setTimeout(() => told.replaceChildren(text), QUIET);
  };
  const draw = () => {
    const label = model.get("label");
    if (label) box.setAttribute("role", "region");
    if (label) box.setAttribute("aria-label", label);
    box.innerHTML = model.get("html");
  };
  const change = () => {
    draw();
    if (live) tell();
  };
  model.on("change:html change:label", change);
  draw();
  el.append(box, ...(live ? [told] : []));
  return () => {
    clearTimeout(timer);
    model.off("change:html change:label", change);
  };
}
export default { render };
