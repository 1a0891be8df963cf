"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const slot = "sft-rate-" + data.key;
  const state = { rater: "", index: 0, ratings: {} };
  const key = (value) => ({ A: "a", B: "b", tie: "t" })[value] || (value.length === 1 ? value : "");
  let stored = true; // whether this browser keeps what is rated
  let saved = true; // whether the file has all of it

  function warn(text) {
    at("warning").textContent = text;
    at("warning").hidden = !text;
  }

  function load() {
    try {
      const known = JSON.parse(localStorage.getItem(slot) || "{}");
      const ids = new Set(data.items.map((item) => item.id));
      for (const [id, value] of Object.entries(known.ratings || {})) {
        if (ids.has(id) && data.values.includes(value)) state.ratings[id] = value;
      }
      state.rater = String(known.rater || "");
      const last = Number(known.index);
      if (Number.isInteger(last) && last >= 0 && last < data.items.length) state.index = last;
      saved = known.saved !== false;
    } catch (error) {
      // A private window, or what lies there is not ours.
    }
  }

  function keep() {
    try {
      localStorage.setItem(slot, JSON.stringify({ ...state, saved }));
      stored = true;
    } catch (error) {
      stored = false;
      warn("This browser keeps nothing for this page: save the CSV file before you close it.");
    }
  }

  function rated() {
    return data.items.filter((item) => item.id in state.ratings).length;
  }

  function paragraph(title, text) {
    const block = document.createElement("div");
    const head = document.createElement("h3");
    const body = document.createElement("p");
    head.textContent = title;
    body.textContent = text || "(empty)";
    body.className = "text" + (text ? "" : " quiet");
    body.dir = "auto";
    block.append(head, body);
    return block;
  }

  function show() {
    const item = data.items[state.index];
    at("place").textContent = `${state.index + 1} of ${data.items.length}`;
    at("prompt").textContent = item.prompt;
    at("prompt").scrollTop = 0;
    at("reference").textContent = item.reference;
    at("reference_block").hidden = !item.reference;
    const titles = item.answers.length === 1 ? ["Answer"] : ["Answer A", "Answer B"];
    at("answers").replaceChildren(...item.answers.map((text, i) => paragraph(titles[i], text)));
    for (const input of at("values").querySelectorAll("input")) {
      input.checked = state.ratings[item.id] === input.value;
    }
    at("previous").disabled = state.index === 0;
    at("next").disabled = state.index === data.items.length - 1;
    count();
  }

  function count() {
    const done = rated();
    at("progress").max = data.items.length;
    at("progress").value = done;
    at("count").textContent = `${done} of ${data.items.length} rated`;
    at("unrated").disabled = done === data.items.length;
    at("save").disabled = done === 0;
  }

  function rate(value) {
    state.ratings[data.items[state.index].id] = value;
    saved = false;
    keep();
    show();
  }

  function go(index) {
    if (index < 0 || index >= data.items.length || index === state.index) return;
    state.index = index;
    keep();
    show();
    at("place").focus({ preventScroll: true });
    at("item").scrollIntoView({ block: "nearest" });
  }

  function goUnrated() {
    for (let step = 1; step <= data.items.length; step++) {
      const index = (state.index + step) % data.items.length;
      if (!(data.items[index].id in state.ratings)) return go(index);
    }
  }

  function quoted(text) {
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function csv() {
    const lines = [["id", "rater", data.column]];
    for (const item of data.items) {
      if (item.id in state.ratings) lines.push([item.id, state.rater, state.ratings[item.id]]);
    }
    return lines.map((line) => line.map(quoted).join(",") + "\r\n").join("");
  }

  function save() {
    if (!rated()) return;
    if (!state.rater) {
      warn("Give your name first: ratings of several people are told apart by it.");
      at("rater").focus();
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
    link.download = `ratings.${data.mode}.${state.rater.replace(/[^\p{L}\p{N}_-]+/gu, "_")}.csv`;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    saved = true;
    warn("");
    keep();
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === at("rater")) return;
    const pressed = event.key.toLowerCase();
    const onControl = event.target.closest && event.target.closest("button, summary");
    const value = data.values.find((v) => key(v) === pressed);
    if (value !== undefined) rate(value);
    else if (pressed === "n" || (pressed === "enter" && !onControl)) go(state.index + 1);
    else if (pressed === "p") go(state.index - 1);
    else if (pressed === "u") goUnrated();
    else if (pressed === "s") save();
    else return;
    event.preventDefault();
  }

  for (const value of data.values) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    input.type = "radio";
    input.name = "value";
    input.value = value;
    input.addEventListener("change", () => rate(value));
    label.append(input, value === "tie" ? "tie: neither" : value);
    at("values").append(label);
  }
  load();
  at("rater").value = state.rater;
  at("rater").addEventListener("input", () => {
    state.rater = at("rater").value.trim();
    if (state.rater) warn("");
    keep();
  });
  at("form").addEventListener("submit", (event) => event.preventDefault());
  at("previous").addEventListener("click", () => go(state.index - 1));
  at("next").addEventListener("click", () => go(state.index + 1));
  at("unrated").addEventListener("click", goUnrated);
  at("save").addEventListener("click", save);
  document.addEventListener("keydown", onKey);
  addEventListener("beforeunload", (event) => {
    if (!stored && !saved) event.preventDefault();
  });
  keep();
  show();
})();
