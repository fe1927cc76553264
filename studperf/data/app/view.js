// A place for HTML that Python makes from escaped parts; it may be a region with a name, or be announced when it changes.
function render({ model, el }) {
  const box = document.createElement("div");
  const draw = () => {
    const label = model.get("label");
    const live = model.get("live");
    if (live) box.setAttribute("role", "status");
    else if (label) box.setAttribute("role", "region");
    if (label) box.setAttribute("aria-label", label);
    box.innerHTML = model.get("html");
  };
  model.on("change:html change:label", draw);
  draw();
  el.append(box);
  return () => model.off("change:html change:label", draw);
}
export default { render };
