// The page of `kkv dev`: the buttons, what they do to ages and counts, and reads of one replica.
"use strict";

const controls = document.querySelector(".controls");
const switchError = controls.querySelector(".error");
const number = new Intl.NumberFormat("en");
const shown = { lag: false, kafka: true, load: false }; // the switches as they are

function showAge(ms) {
  if (ms === null) return "not known";
  return ms < 1000 ? "0 s" : (ms / 1000).toFixed(1) + " s";
}

function loadText(l) {
  if (!l.seen) return "";
  const missed = l.missed.reduce((a, b) => a + b, 0);
  const seen = l.seen.map((n, i) => `by ${i + 1}: ${number.format(n)}`).join(", ");
  return `sent ${number.format(l.sent)} · missed ${number.format(missed)}\nseen ${seen}` + (l.error ? "\n" + l.error : "");
}

function say(id, text) {
  const p = document.getElementById(id);
  if (text && p.textContent !== text && p.className !== "off") p.textContent = text;
}

// showDev takes the event "dev", four times a second.
function showDev(d) {
  d.replicas.forEach((r, n) => {
    const age = index.columns[n].querySelector(".age");
    age.lastChild.textContent = showAge(r.ageMs);
    age.classList.toggle("old", r.ageMs === null || r.ageMs >= 1000);
  });
  Object.assign(shown, { lag: d.lag, kafka: d.kafka, load: d.load.on });
  const button = (name) => controls.querySelector(`[data-switch=${name}]`);
  button("lag").ariaPressed = d.lag;
  say("lag", d.lag ? "Replica 2 gets every record late. Put a colour, then read below." : "Records reach all replicas at once.");
  button("kafka").textContent = d.kafka ? "Stop Kafka" : "Start Kafka";
  button("kafka").classList.toggle("pressed", !d.kafka);
  say("kafka", d.kafka ? "Kafka runs." : "Kafka is stopped: ages count up, local reads go on.");
  button("load").ariaPressed = d.load.on;
  button("load").setAttribute("aria-busy", d.load.ending);
  say("load", loadText(d.load));
}

controls.addEventListener("click", async (e) => {
  const name = e.target.dataset.switch;
  if (!name) return;
  try {
    const r = await fetch("/-/dev/" + name, { method: "POST", body: new URLSearchParams({ on: !shown[name] }) });
    switchError.textContent = (await r.json()).error || "";
  } catch {
    switchError.textContent = "kkv dev did not answer; is it still running?";
  }
});

// Reads are of the key in the form.
function readKey() {
  return form.elements.key.value || "A";
}
function showReadKey() {
  for (const el of main.querySelectorAll(".readkey")) el.textContent = readKey();
}
form.elements.key.addEventListener("input", () => {
  showReadKey();
  for (const out of main.querySelectorAll("[data-how] + output")) out.replaceChildren(); // was of another key
});
showReadKey();

// read asks one replica, and shows what came and how long that took.
async function read(button) {
  if (button.ariaBusy === "true") return; // not disabled: it would lose the focus
  const out = button.nextElementSibling;
  const how = button.dataset.how;
  const q = new URLSearchParams({ replica: button.closest(".replica").dataset.replica, key: readKey(), how });
  if (how === "at-least") {
    if (!form.dataset.position) {
      out.textContent = "put a colour first";
      return;
    }
    q.set("position", form.dataset.position);
  }
  button.ariaBusy = out.ariaBusy = "true"; // a screen reader waits for what comes
  out.className = "waiting";
  const began = performance.now();
  const wait = () => { out.textContent = `waiting ${((performance.now() - began) / 1000).toFixed(1)} s`; };
  const ticking = setInterval(wait, 100);
  let answer;
  try {
    answer = await (await fetch("/-/dev/read?" + q)).json();
  } catch {
    answer = { error: "kkv dev did not answer; is it still running?" };
  }
  clearInterval(ticking);
  button.ariaBusy = out.ariaBusy = "false";
  out.className = answer.error ? "refused" : "";
  if (answer.error) {
    out.textContent = (answer.status ? answer.status + ": " : "") + answer.error;
    return;
  }
  const swatch = element("i", "swatch");
  swatch.style.backgroundColor = answer.color || neutral;
  const took = element("small", "took");
  took.textContent = (how === "local" ? "in " : "waited ") + answer.took;
  out.replaceChildren(swatch, element("b", "value"), took);
  out.querySelector(".value").textContent = answer.text;
}
for (const button of main.querySelectorAll("[data-how]")) button.addEventListener("click", () => read(button));
