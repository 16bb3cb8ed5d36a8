"use strict";
// The viewer of samples. Everything of a sample is set as text, never as markup.
(function () {
  const samples = JSON.parse(document.getElementById("data").textContent);
  const by = (name) => document.getElementById(name);
  const [verdict, kind, reason, text, boxes] = ["verdict", "kind", "reason", "text", "boxes"].map(by);
  const [article, place, back, on] = ["sample", "place", "back", "on"].map(by);
  let found = samples, at = 0;

  function add(parent, tag, content, name) {
    const made = document.createElement(tag);
    if (content !== undefined) made.textContent = content;
    if (name) made.className = name;
    parent.append(made);
    return made;
  }
  function options(select, values) {
    [...new Set(values)].filter(Boolean).sort().forEach((value) => { add(select, "option", value).value = value; });
    select.parentNode.hidden = select.options.length < 2;
  }
  function colours(list) {
    const names = [...new Set(list.map((box) => box[0]))];
    return (name) => "var(--c" + (names.indexOf(name) % 8) + ")";
  }
  function plate(one) {
    const made = document.createElement("div");
    made.className = "plate";
    const empty = (why) => { made.classList.add("empty"); add(made, "em", why); };
    if (one.src) {
      const img = add(made, "img");
      img.alt = "picture of sample " + one.id;
      img.onerror = () => { img.remove(); empty(one.image + " cannot be shown"); };
      img.src = one.src;
    } else if (one.image) empty(one.image + " is not there");
    const colour = colours(one.boxes);
    for (const [name, left, top, right, bottom] of one.boxes) {
      const box = add(made, "div", undefined, "box");
      Object.assign(box.style, {
        left: 100 * left + "%", top: 100 * top + "%", width: 100 * (right - left) + "%",
        height: 100 * (bottom - top) + "%", borderColor: colour(name),
      });
      add(box, "b", name).style.background = colour(name);
    }
    return made;
  }
  function show() {
    const one = found[at];
    place.textContent = found.length ? at + 1 + " of " + found.length : "none fits";
    back.disabled = at <= 0;
    on.disabled = at >= found.length - 1;
    article.replaceChildren();
    if (!one) return;
    if (one.image || one.boxes.length) article.append(plate(one));
    const words = add(article, "div");
    add(words, "h3", one.id);
    const line = add(words, "div", undefined, "soft");
    add(line, "span", one.kept ? "kept" : "rejected", "mark " + (one.kept ? "kept" : "rejected"));
    line.append([one.kind, one.image, one.from].filter(Boolean).map((part) => " · " + part).join(""));
    for (const [list, name] of [[one.reasons, "why"], [one.notes, "why note"]]) {
      if (list.length) {
        const made = add(words, "ul", undefined, name);
        list.forEach((why) => {
          const item = add(made, "li", why);
          if (Object.hasOwn(one.evidence, why)) add(item, "q", one.evidence[why]);
        });
      }
    }
    const said = add(words, "dl", undefined, "said");
    one.said.forEach(([question, answer]) => { add(said, "dt", question); add(said, "dd", answer); });
    if (one.reply) { add(said, "dt", "The reply as it came"); add(said, "dd", one.reply); }
  }
  function filter() {
    const wanted = text.value.toLowerCase();
    found = samples.filter((one) =>
      (!verdict.value || one.kept === (verdict.value === "kept")) &&
      (!kind.value || one.kind === kind.value) &&
      (!reason.value || one.reasons.includes(reason.value) || one.notes.includes(reason.value)) &&
      (!wanted || [one.id, one.image, one.reply, ...one.said.flat()].join("\n").toLowerCase().includes(wanted)));
    at = 0;
    show();
  }
  function step(by) {
    at = Math.max(0, Math.min(found.length - 1, at + by));
    show();
  }
  options(kind, samples.map((one) => one.kind));
  options(reason, samples.flatMap((one) => [...one.reasons, ...one.notes]));
  verdict.parentNode.hidden = new Set(samples.map((one) => one.kept)).size < 2;
  [verdict, kind, reason].forEach((select) => { select.onchange = filter; });
  text.oninput = filter;
  boxes.onchange = () => { article.classList.toggle("nobox", !boxes.checked); };
  back.onclick = () => step(-1);
  on.onclick = () => step(1);
  document.onkeydown = (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox";
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing) { if (event.key === "Escape") event.target.blur(); return; }
    if (event.key === "ArrowRight") step(1);
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "/") { event.preventDefault(); text.focus(); }
    else if (event.key === "b") boxes.click();
  };
  const named = samples.findIndex((one) => location.hash === "#id=" + encodeURIComponent(one.id));
  if (named >= 0) at = named;
  show();
})();
