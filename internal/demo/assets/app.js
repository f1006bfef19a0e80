// Keeps the page as the topic is, by the server-sent events of /events. Nothing here makes markup of text: keys,
// values and colours go in as text and as properties only.
"use strict";

const main = document.querySelector("[data-events]");
const statusLine = document.querySelector(".status");
const empty = document.querySelector(".empty");
const form = document.querySelector("form");
const neutral = "var(--neutral)";

function showStatus(live, text) {
  statusLine.className = "status " + (live ? "live" : "reconnecting");
  statusLine.textContent = text;
}

function fromServer(s) {
  showStatus(s.live, s.live ? "live" : s.ready ? "reconnecting" : "waiting for the cache");
}

function flash(el) {
  el.classList.remove("flash");
  void el.offsetWidth; // so that the animation starts again
  el.classList.add("flash");
}

function element(tag, className) {
  const el = document.createElement(tag);
  el.className = className;
  return el;
}

// The page of all keys: a column for each replica that is shown.
const index = main.id === "index" && {
  columns: [...main.querySelectorAll(".replica")],

  find(b) {
    return this.columns[b.replica].querySelector(`[data-id="${CSS.escape(b.id)}"]`);
  },

  create(b) {
    const el = element("a", b.tile ? "tile" : "box");
    el.dataset.key = b.key;
    el.dataset.id = b.id;
    el.href = b.href;
    if (b.tile) {
      el.ariaLabel = b.key;
    } else {
      const label = element("span", "label");
      label.append(element("b", "key"), element("span", "text"), element("small", "offset"), element("small", "delay"));
      label.firstChild.textContent = b.key;
      el.append(label);
    }
    const list = this.columns[b.replica].querySelector(b.tile ? ".tiles" : ".boxes");
    let after = list.lastElementChild; // boxes are in key order
    while (after && after.dataset.key > b.key) after = after.previousElementSibling;
    if (after) after.after(el);
    else list.prepend(el);
    return el;
  },

  put(b) {
    const el = this.find(b) || this.create(b);
    el.style.backgroundColor = b.color || neutral;
    if (b.tile) return el;
    const offset = el.querySelector(".offset");
    const isNew = offset.textContent !== String(b.offset);
    offset.textContent = b.offset;
    el.querySelector(".text").textContent = b.text;
    el.querySelector(".delay").textContent = b.delay || "";
    if (isNew) flash(el);
    return el;
  },

  remove(b) {
    this.find(b)?.remove();
  },

  state(s) {
    const shown = new Set(s.boxes.map((b) => b.replica + " " + b.id));
    this.columns.forEach((column, n) => {
      for (const el of column.querySelectorAll("[data-id]")) if (!shown.has(n + " " + el.dataset.id)) el.remove();
    });
    for (const b of s.boxes) this.put(b);
  },

  isEmpty() {
    return !main.querySelector("[data-id]");
  },
};

// The page of one key.
const one = main.id === "one" && {
  put(b) {
    let el = main.querySelector(":scope > div");
    if (!el) {
      el = document.createElement("div");
      el.textContent = "Hello Kafka!";
      main.prepend(el);
    }
    el.style.backgroundColor = b.color || neutral;
    flash(el);
    return el;
  },

  remove() {
    main.querySelector(":scope > div")?.remove();
  },

  state(s) {
    if (s.boxes.length) this.put(s.boxes[0]);
    else if (s.ready) this.remove();
  },

  isEmpty() {
    return !main.querySelector(":scope > div");
  },
};

const page = index || one;
let ready = false;

function changed() {
  empty.hidden = !ready || !page.isEmpty();
}

function connect() {
  const events = new EventSource(main.dataset.events);
  const on = (name, f) => events.addEventListener(name, (e) => { f(JSON.parse(e.data)); changed(); });
  on("state", (s) => { ready = s.ready; fromServer(s); if (s.ready) page.state(s); });
  on("status", (s) => { ready = s.ready; fromServer(s); });
  on("put", (b) => page.put(b));
  on("delete", (b) => page.remove(b));
  on("dev", (d) => showDev(d)); // of dev.js, the page of `kkv dev` only
  events.onerror = () => {
    showStatus(false, "reconnecting");
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, 2000); // the browser gave up; we do not
  };
}
connect();

form?.addEventListener("submit", async (e) => {
  e.preventDefault();
  const button = form.querySelector("button");
  const error = form.querySelector(".error");
  button.disabled = true;
  try {
    const r = await fetch("/", {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams(new FormData(form)),
    });
    const answer = await r.json();
    error.textContent = answer.error || "";
    if (answer.position) form.dataset.position = answer.position; // of my newest write
    if (!answer.error && index) form.elements.color.select();
  } catch {
    error.textContent = "The demo application did not answer; is it still running?";
  } finally {
    button.disabled = false;
  }
});
