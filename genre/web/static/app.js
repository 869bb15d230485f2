"use strict";

const API = new URL("../", document.baseURI); // of the service, which may be served under a prefix
const N_SIMILAR = 8;
const WAVE_RATE = 8000; // Hz
const BAR_PX = 4; // of the waveform, with the gap
// Petroff, "Accessible color sequences for data visualization" (2021); as in genre/evaluation/plots.py
const PETROFF10 = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"];
const NEUTRAL = "#8a8f98";
const CERTAINTY = [[0.9, "almost certain"], [0.7, "quite sure"], [0.5, "probably"], [0.35, "not sure"], [0, "a guess"]];

const dark = matchMedia("(prefers-color-scheme: dark)");
const $ = (id) => document.getElementById(id);
const player = $("player");
const recorder = { media: null, timer: 0 };
let info = null; // of /v1/info
let request = null; // AbortController of the current song
let song = null; // {url, answer, levels, seconds}
let selected = -1; // chunk; -1: the whole song
let source = null; // the play button whose audio is loaded

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// ---- colours and numbers

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

function colour(genre) {
  const position = info.genres.indexOf(genre);
  const base = rgb(position < 0 ? NEUTRAL : PETROFF10[position % 10]);
  const white = (dark.matches ? 0.22 : 0) + 0.25 * Math.max(0, Math.floor(position / 10));
  return `rgb(${base.map((v) => Math.round(v + (255 - v) * Math.min(white, 0.8))).join(" ")})`;
}

function textOn(background) { // WCAG 2.2, relative luminance
  const [r, g, b] = background.match(/\d+/g).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) ? "#000" : "#fff";
}

const percent = (share) => (share >= 0.01 ? `${Math.round(100 * share)} %` : "< 1 %");

function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function tag(genre) {
  const node = element("span", { className: "tag" }, genre);
  node.style.setProperty("--genre", colour(genre));
  return node;
}

function track(share, genre) {
  const fill = element("i");
  fill.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  fill.style.background = colour(genre);
  return element("span", { className: "track" }, fill);
}

// ---- requests

function post(path, file, signal, onProgress) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("audio", file, file.name);
    const xhr = new XMLHttpRequest();
    xhr.open("POST", new URL(path, API));
    xhr.upload.onprogress = (event) => onProgress?.(event.lengthComputable ? event.loaded / event.total : 0);
    xhr.onerror = () => reject(new Error("The service cannot be reached."));
    xhr.onload = () => {
      let body = null;
      try { body = JSON.parse(xhr.responseText); } catch { /* plain text, from the server or a proxy */ }
      if (xhr.status === 200 && body) resolve(body);
      else reject(Object.assign(new Error(`${body?.message ?? `The service answered ${xhr.status}`}.`), { status: xhr.status }));
    };
    signal.addEventListener("abort", () => { xhr.abort(); reject(new DOMException("", "AbortError")); });
    xhr.send(form);
  });
}

async function loadInfo() {
  for (;;) {
    try {
      const response = await fetch(new URL("v1/info", API));
      if (response.ok) { info = await response.json(); break; }
    } catch { /* the service is restarting */ }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  const { model, genres, accuracy, validation_songs: n, max_upload_bytes: bytes, max_audio_s: seconds } = info;
  const score = accuracy === null ? "" : `, ${Math.round(100 * accuracy)} % correct on ${n ?? "its"} validation songs`;
  $("model").replaceChildren("Model ", element("strong", { textContent: model }), `${score}, ${genres.length} genres`);
  $("limits").textContent = `Any audio format, up to ${Math.floor(bytes / 2 ** 20) || 1} MB and ${clock(seconds)} min`;
  for (const example of info.examples) {
    const button = element("button", { className: "button", type: "button", textContent: example.song });
    button.onclick = () => analyseExample(example);
    $("examples").append(button);
  }
  $("examples").hidden = !info.examples.length;
  document.body.classList.add("ready");
}

const audioURL = ({ genre, song: name }) => new URL(`v1/audio?${new URLSearchParams({ genre, song: name })}`, API).href;

function begin() { // ends the work on the song before
  request?.abort();
  request = new AbortController();
  return request.signal;
}

async function analyseExample(example) {
  const signal = begin();
  try {
    const response = await fetch(audioURL(example), { signal });
    if (!response.ok) throw new Error("This song is no longer available.");
    const blob = await response.blob();
    await analyse(new File([blob], example.song, { type: blob.type }));
  } catch (error) { if (!signal.aborted) fail("The example cannot be played", error); }
}

async function analyse(file) {
  const signal = begin();
  reset();
  const progress = $("progress");
  progress.hidden = false;
  progress.value = 0;
  if (!info) $("status").textContent = "The models are loading …";
  try {
    while (!info) await new Promise((resolve) => setTimeout(resolve, 200));
    signal.throwIfAborted(); // another song was chosen meanwhile
    if (file.size > info.max_upload_bytes) throw new Error(`${file.name} is larger than ${Math.floor(info.max_upload_bytes / 2 ** 20) || 1} MB.`);
    $("status").textContent = `Uploading ${file.name} …`;
    const decoded = waveform(file);
    const answer = await post("v1/query", file, signal, (share) => {
      progress.value = share;
      if (share === 1) { progress.removeAttribute("value"); $("status").textContent = "Analysing the song …"; }
    });
    progress.hidden = true;
    const { levels = null, seconds = 0 } = (await decoded) ?? {};
    if (signal.aborted) return;
    song = { url: URL.createObjectURL(file), answer, seconds: Math.max(answer.chunks.at(-1).end, seconds), levels };
    showAnswer();
    $("status").textContent = "Searching the index …";
    await Promise.all([
      post("v1/identify", file, signal).then(showMatch, (error) => note("match", error)),
      post(`v1/similar?top=${N_SIMILAR}`, file, signal).then(showSimilar, (error) => note("similar", error)),
    ]);
    if (!signal.aborted) $("status").textContent = "";
  } catch (error) {
    const reason = error.status === 400 ? new Error(`Choose an audio or video file that is not damaged. (${error.message})`) : error;
    if (!signal.aborted) fail(`${file.name} could not be analysed`, reason);
  }
}

function reset() {
  player.pause();
  player.removeAttribute("src");
  if (song) URL.revokeObjectURL(song.url);
  song = source = null;
  $("answer").hidden = $("error").hidden = true;
  $("status").textContent = "";
}

function fail(title, error) {
  $("progress").hidden = true;
  $("status").textContent = "";
  $("error").replaceChildren(element("strong", { textContent: title }), element("p", { textContent: error.message }));
  $("error").hidden = false;
}

function note(list, error) {
  if (error.name === "AbortError") return;
  $(list).replaceChildren(element("li", { className: "note", textContent: error.message }));
}

// ---- waveform

async function waveform(file) { // RMS of 1000 spans, 0 to 1, and their length in seconds; null if the browser cannot decode the format
  try {
    const decoded = await new OfflineAudioContext(1, 1, WAVE_RATE).decodeAudioData(await file.arrayBuffer());
    const samples = decoded.getChannelData(0).subarray(0, info.max_audio_s * WAVE_RATE);
    const levels = Array.from({ length: 1000 }, (_, i) => {
      const span = samples.subarray(Math.floor((i * samples.length) / 1000), Math.floor(((i + 1) * samples.length) / 1000));
      return Math.sqrt(span.reduce((sum, v) => sum + v * v, 0) / Math.max(1, span.length));
    });
    const loudest = Math.max(...levels, 1e-6);
    return { levels: levels.map((level) => level / loudest), seconds: samples.length / WAVE_RATE };
  } catch { return null; }
}

function drawWaveform() {
  if (!song) return;
  const canvas = $("waveform");
  const { width, height } = canvas.getBoundingClientRect();
  const scale = devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const n = Math.floor(width / BAR_PX);
  for (let i = 0; i < n; i++) {
    const at = ((i + 0.5) / n) * song.seconds;
    const index = song.answer.chunks.findIndex((chunk) => at >= chunk.start && at < chunk.end);
    const span = song.levels?.slice(Math.floor((i * 1000) / n), Math.max(Math.floor((i * 1000) / n) + 1, Math.floor(((i + 1) * 1000) / n)));
    const half = span ? Math.max(1.5, (height / 2 - 2) * Math.max(...span)) : 10;
    context.globalAlpha = selected < 0 || selected === index ? 1 : 0.35;
    context.fillStyle = index < 0 ? NEUTRAL : colour(song.answer.chunks[index].genre);
    context.beginPath();
    context.roundRect(i * BAR_PX, height / 2 - half, BAR_PX - 1.5, 2 * half, 2);
    context.fill();
  }
}

// ---- the answer

function showAnswer() {
  const { answer } = song;
  document.body.classList.add("answered");
  $("answer").hidden = false;
  selected = -1;
  $("name").textContent = answer.file;
  const votes = Object.entries(answer.votes).sort((a, b) => b[1] - a[1]).map(([genre, n]) => `${n} ${genre}`);
  const isUnknown = answer.genre === "unknown";
  const set = answer.genre_set; // genres of which one is right for 90 % of songs
  $("genre").textContent = isUnknown ? "Unknown" : answer.genre;
  $("set").textContent = isUnknown || set.length < 2 ? "" : `${set.slice(0, -1).join(", ")} or ${set.at(-1)}`;
  $("certainty").textContent = isUnknown ? answer.reason : CERTAINTY.find(([least]) => answer.confidence >= least)[1];
  $("confidence").textContent = isUnknown ? "none of the model's genres" : percent(answer.confidence);
  $("votes").textContent = `${answer.chunks.length} chunk${answer.chunks.length > 1 ? "s" : ""}: ${votes.join(", ")}`;
  $("warnings").textContent = answer.warnings.map((warning) => `Warning: ${warning}.`).join(" ");
  const isCut = answer.duration >= info.max_audio_s - 1;
  const tail = song.seconds - answer.chunks.at(-1).end;
  $("cut").hidden = !isCut && tail < 0.1;
  $("cut").textContent = isCut ? `Only the first ${clock(info.max_audio_s)} minutes were analysed.` : `Grey: the last ${tail.toFixed(1)} s are too short for a chunk and were not analysed.`;
  for (const list of ["match", "similar"]) $(list).replaceChildren(element("li", { className: "note", textContent: "Searching …" }));
  const step = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800].find((s) => song.seconds / s <= 6) ?? 3600;
  $("ticks").replaceChildren();
  for (let at = 0; at < song.seconds * 0.96; at += step) {
    const tick = element("span", { textContent: clock(at) });
    tick.style.left = `${(100 * at) / song.seconds}%`;
    $("ticks").append(tick);
  }
  load($("play"), song.url);
  paint();
}

function paint() { // after a change of the colours or the size
  if (!song) return;
  const { answer } = song;
  $("verdict").style.setProperty("--genre", colour(answer.genre));
  $("chunks").replaceChildren(...answer.chunks.map((chunk, i) => {
    const label = `${clock(chunk.start)}–${clock(chunk.end)} ${chunk.genre}, ${percent(chunk.probabilities[chunk.genre])}`;
    const width = (100 * (chunk.end - chunk.start)) / song.seconds;
    const button = element("button", { type: "button", title: label, textContent: (width / 100) * $("chunks").clientWidth > 8 * chunk.genre.length + 12 ? chunk.genre : "" });
    button.setAttribute("role", "radio");
    button.setAttribute("aria-label", label);
    button.style.left = `${(100 * chunk.start) / song.seconds}%`;
    button.style.width = `${width}%`;
    button.style.backgroundColor = colour(chunk.genre);
    button.style.color = textOn(colour(chunk.genre));
    button.onclick = () => { select(i); play(chunk.start); };
    return button;
  }));
  const shown = info.genres.filter((genre) => answer.chunks.some((chunk) => chunk.genre === genre));
  $("legend").replaceChildren(...shown.map((genre) => element("li", {}, tag(genre))));
  select(selected);
}

function select(index) {
  selected = index;
  const { chunks } = song.answer;
  [...$("chunks").children].forEach((button, i) => {
    button.setAttribute("aria-checked", String(i === index));
    button.tabIndex = i === Math.max(index, 0) ? 0 : -1;
  });
  const mean = (genre) => chunks.reduce((sum, chunk) => sum + chunk.probabilities[genre], 0) / chunks.length;
  const shares = info.genres.map((genre) => [genre, index < 0 ? mean(genre) : chunks[index].probabilities[genre]]);
  shares.sort((a, b) => b[1] - a[1]);
  $("bars").replaceChildren(...shares.slice(0, 6).map(([genre, share]) =>
    element("li", {}, element("span", { textContent: genre }), track(share, genre), element("span", { textContent: percent(share) }))));
  $("bars-title").textContent = index < 0 ? "Mean probabilities" : `Chunk ${clock(chunks[index].start)}–${clock(chunks[index].end)}`;
  $("mean").hidden = index < 0;
  drawWaveform();
}

$("chunks").addEventListener("keydown", (event) => {
  const last = song.answer.chunks.length - 1;
  const current = [...$("chunks").children].indexOf(event.target);
  const moves = { ArrowRight: current + 1, ArrowDown: current + 1, ArrowLeft: current - 1, ArrowUp: current - 1, Home: 0, End: last };
  if (event.key === " " || event.key === "Enter") {
    event.preventDefault();
    select(current);
    if (source === $("play") && !player.paused) player.pause();
    else play(song.answer.chunks[current].start);
  } else if (event.key in moves) {
    event.preventDefault();
    const next = Math.min(Math.max(moves[event.key], 0), last);
    select(next);
    if (source === $("play")) seek(song.answer.chunks[next].start);
    $("chunks").children[next].focus();
  }
});
$("mean").onclick = () => select(-1);

// ---- songs of the index

function row(entry, detail, score) {
  const button = element("button", { className: "play", type: "button" });
  button.setAttribute("aria-label", `Play ${entry.song}`);
  button.onclick = () => toggle(button, audioURL(entry), entry.offset ?? 0);
  const title = element("div", {}, element("p", { className: "song-title", textContent: entry.song }),
    element("p", { className: "muted small" }, tag(entry.genre), detail));
  const item = element("li", {}, button, title);
  if (score !== undefined) item.append(element("div", { className: "score tabular muted" }, score.toFixed(2), track(score, entry.genre)));
  return item;
}

function showMatch(match) {
  if (match.song === null) return note("match", new Error("No indexed song matches."));
  $("match").replaceChildren(...match.songs.map((song) => {
    const offset = Math.max(0, song.offset);
    return row({ ...song, offset }, offset < 0.5 ? " · from its beginning" : ` · from ${clock(offset)}`);
  }));
}

function showSimilar(similar) {
  $("similar").replaceChildren(...similar.songs.map((entry) => row(entry, "", entry.score)));
}

// ---- playback: one player; `source` is the button whose audio it holds

function load(button, url, at = 0) {
  source?.classList.remove("on");
  source = button;
  player.src = url;
  if (at) player.addEventListener("loadedmetadata", () => (player.currentTime = at), { once: true });
}

function seek(seconds) {
  if (player.readyState) player.currentTime = seconds;
  else player.addEventListener("loadedmetadata", () => (player.currentTime = seconds), { once: true });
}

function start() {
  player.play().catch((error) => {
    if (error.name === "AbortError" || !source) return;
    source.disabled = true;
    $("status").textContent = "This song cannot be played in this browser.";
  });
}

function toggle(button, url, at = 0) {
  if (source !== button) load(button, url, at);
  if (player.paused) start();
  else player.pause();
}

function play(at) {
  if (source !== $("play")) load($("play"), song.url);
  seek(at);
  start();
}

$("play").onclick = () => toggle($("play"), song.url);
$("waveform").onclick = (event) => play((event.offsetX / event.target.clientWidth) * song.seconds);
player.onplay = () => source?.classList.add("on");
player.onpause = player.onended = () => source?.classList.remove("on");
player.ontimeupdate = () => {
  if (!song || source !== $("play")) return;
  $("time").textContent = `${clock(player.currentTime)} / ${clock(song.seconds)}`;
  $("playhead").hidden = false;
  $("playhead").style.left = `${Math.min(100, (100 * player.currentTime) / song.seconds)}%`;
  const now = song.answer.chunks.findLastIndex((chunk) => chunk.start <= player.currentTime + 0.01);
  if (!player.paused && selected >= 0 && now >= 0 && now !== selected) select(now);
};

// ---- files, drops, the microphone

$("file").onchange = (event) => { if (event.target.files[0]) analyse(event.target.files[0]); event.target.value = ""; };
addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) analyse(event.dataTransfer.files[0]);
});

$("record").onclick = async () => {
  if (recorder.media) return recorder.media.stop();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    const parts = [];
    const media = (recorder.media = new MediaRecorder(stream));
    const start = performance.now();
    media.ondataavailable = (event) => parts.push(event.data);
    media.onstop = () => {
      stream.getTracks().forEach((one) => one.stop());
      clearInterval(recorder.timer);
      recorder.media = null;
      $("record").classList.remove("recording");
      $("record-label").textContent = "Record";
      const extension = media.mimeType.includes("mp4") ? "mp4" : media.mimeType.includes("ogg") ? "ogg" : "webm";
      analyse(new File(parts, `recording.${extension}`, { type: media.mimeType }));
    };
    media.start();
    $("record").classList.add("recording");
    const showTime = () => ($("record-label").textContent = `Stop (${clock((performance.now() - start) / 1000)})`);
    showTime();
    recorder.timer = setInterval(showTime, 500);
  } catch (error) {
    const reason = navigator.mediaDevices ? error.message : "Browsers allow the microphone only over https or on localhost";
    fail("The microphone is not available", new Error(`${reason}.`));
  }
};

new ResizeObserver(drawWaveform).observe($("waveform"));
dark.addEventListener("change", () => { paint(); });
loadInfo();
