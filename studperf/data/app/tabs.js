// The parts of the page as a list of buttons; Python shows the part that is chosen. And one look whether Python is still there:
// beside an answer that no longer changes, what is typed now would look answered.
const PATIENCE = 15000; // ms; a large class keeps Python busy for a while
const EVERY = 30000;

function lostNotice() {
  const place = document.createElement("div");
  place.className = "sp-lost";
  place.setAttribute("role", "alert");
  const tell = (lost) => {
    if (!lost) return place.replaceChildren();
    if (place.children.length) return;
    const text = document.createElement("p");
    text.textContent = "This page is not answered any more: the numbers do not follow what you type.";
    place.append(text);
    if (!("voila" in document.body.dataset)) return;
    const again = document.createElement("button");
    again.type = "button";
    again.className = "sp-button";
    again.textContent = "Open the page again";
    again.addEventListener("click", () => location.reload());
    place.append(again);
  };
  return [place, tell];
}

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

  const [place, tell] = lostNotice();
  let waiting = null;
  const ask = () => {
    if (waiting !== null) return;
    waiting = setTimeout(() => {
      waiting = null;
      tell(true);
    }, PATIENCE);
    try {
      model.send({ kind: "ask" });
    } catch {
      tell(true); // the connection is closed already
    }
  };
  const hear = () => {
    clearTimeout(waiting);
    waiting = null;
    tell(false);
  };
  const regular = setInterval(ask, EVERY);
  const touches = ["input", "change", "click"];
  for (const touch of touches) document.addEventListener(touch, ask);

  model.on("change:titles change:chosen", draw);
  model.on("msg:custom", hear);
  draw();
  el.append(nav, place);
  model.send({ kind: "open" }); // somebody is here: a page that was made ready an hour ago may be of an older model
  return () => {
    clearInterval(regular);
    clearTimeout(waiting);
    for (const touch of touches) document.removeEventListener(touch, ask);
    model.off("change:titles change:chosen", draw);
    model.off("msg:custom", hear);
  };
}
export default { render };
