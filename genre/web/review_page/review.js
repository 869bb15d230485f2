"use strict";

const API = new URL("v1/review", document.baseURI);
const KEYS = "1234567890abcefghijklmnopqrtvwxyz"; // of the genres; d, s and u are drop, skip and undo
const DROP = "drop"; // as in genre/audio/corrections.py

const $ = (id) => document.getElementById(id);
const player = $("player");
let state = null; // of GET /v1/review
let busy = false; // an answer is being saved
let source = null; // the play button whose audio is loaded

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

async function call(method, body) {
  if (busy) return;
  busy = true;
  try {
    const headers = body ? { "content-type": "application/json" } : {};
    const response = await fetch(API, { method, headers, body: body && JSON.stringify(body) });
    const result = await response.json();
    if (!response.ok) throw new Error(result.message);
    state = result;
    $("error").hidden = true;
    show();
  } catch (error) {
    $("error").replaceChildren(error.name === "TypeError" ? "The service cannot be reached: run python -m stages.review." : error.message);
    $("error").hidden = false;
  } finally { busy = false; }
}

const reply = (genre) => state?.question && call("POST", { song: state.question.song, genre });

function show() {
  const { question, genres, asked, remaining, findings, gain } = state;
  $("counts").textContent = `${asked} answered, ${remaining} to go, ${findings} of them with findings.`;
  $("gain").textContent = gain && `${gain}.`;
  $("question").hidden = !question;
  $("drop").disabled = $("skip").disabled = !question;
  $("undo").disabled = !asked;
  player.pause();
  if (!question) return ($("status").textContent = "All songs are answered. Train again with: dvc repro");
  const { song, genre, suggested, margin, finding, evidence, others } = question;
  const sure = suggested === genre ? `the models agree, by ${Math.round(100 * margin)} points` : "the models predict ";
  $("song").textContent = song;
  $("labels").replaceChildren("In ", element("b", { textContent: genre }), "; ", sure, suggested === genre ? "" : element("strong", { textContent: suggested }));
  $("evidence").textContent = evidence && `${finding}: ${evidence}`;
  $("others").replaceChildren(...Object.entries(others).map(([other, itsGenre]) => {
    const button = element("button", { className: "play", type: "button", ariaLabel: `Play ${other}` });
    button.onclick = () => toggle(button, other);
    return element("li", {}, button, element("div", {}, element("p", { className: "song-title", textContent: other }),
      element("p", { className: "muted small", textContent: itsGenre })));
  }));
  $("genres").replaceChildren(...genres.map((name, i) => {
    const key = KEYS[i] ? [element("kbd", { textContent: KEYS[i] })] : [];
    const button = element("button", { className: "button", type: "button" }, ...key, name);
    button.classList.toggle("current", name === genre);
    button.classList.toggle("suggested", name === suggested);
    button.onclick = () => { button.blur(); reply(name); };
    return button;
  }));
  source = null;
  toggle($("play"), song);
}

function toggle(button, song) {
  if (source === button && !player.paused) return player.pause();
  source?.classList.remove("on");
  if (source !== button) player.src = `${API}/audio?${new URLSearchParams({ song })}`;
  source = button;
  player.currentTime = 0;
  $("status").textContent = "";
  player.play().catch((error) => {
    if (error.name === "NotAllowedError") $("status").textContent = "Press space or the play button to listen.";
    else if (error.name !== "AbortError") $("status").textContent = "This song cannot be played.";
  });
}

player.onplay = () => source.classList.add("on");
player.onpause = player.onended = () => source?.classList.remove("on");
player.ondurationchange = () => { if (source === $("play")) $("progress").max = player.duration || 10; };
player.ontimeupdate = () => { if (source === $("play")) $("progress").value = player.currentTime; };
$("play").onclick = () => toggle($("play"), state.question.song);
$("drop").onclick = () => reply(DROP);
$("skip").onclick = () => reply(null);
$("undo").onclick = () => call("DELETE");

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !state) return;
  const key = event.key.toLowerCase();
  if (key === " ") {
    if (event.target.matches("button:focus-visible")) return; // the space bar presses the button
    event.preventDefault();
    player.pause();
    if (state.question) toggle($("play"), state.question.song);
  } else if (key === "d") reply(DROP);
  else if (key === "s") reply(null);
  else if (key === "u") call("DELETE");
  else if (KEYS.includes(key) && state.genres[KEYS.indexOf(key)]) reply(state.genres[KEYS.indexOf(key)]);
});
call("GET");
