// The parts of the page as a list of buttons; Python shows the part that is chosen.
function render({ model, el }) {
  const nav = document.createElement("nav");
  nav.className = "sp-tabs";
  nav.setAttribute("aria-label", "Parts of this page");
  const draw = () => {
    const chosen = model.get("chosen");
    const buttons = model.get("titles").map((title, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = title;
      if (at === chosen) button.setAttribute("aria-current", "page");
      button.addEventListener("click", () => {
        model.set("chosen", at);
        model.save_changes();
      });
      return button;
    });
    const held = [...nav.children].indexOf(document.activeElement);
    nav.replaceChildren(...buttons);
    if (held >= 0 && buttons[held]) buttons[held].focus();
  };
  model.on("change:titles change:chosen", draw);
  draw();
  el.append(nav);
  model.send({ kind: "open" }); // somebody is here: a page that was made ready an hour ago may be of an older model
  return () => model.off("change:titles change:chosen", draw);
}
export default { render };
