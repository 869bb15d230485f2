// The page's behaviour: chunks show their numbers and play from there, songs are listened to, one at a time.
(() => {
  const player = new Audio();
  let playing = null; // the button of the song that `player` holds

  const uploaded = () => document.querySelector("#gp-song audio");
  const chunks = (strip) => [...strip.querySelectorAll(".gp-chunk")];

  function show(chunk) {
    const timeline = chunk.closest(".gp-timeline");
    timeline.querySelectorAll(".gp-detail").forEach((d) => (d.hidden = d.dataset.n !== chunk.dataset.n));
  }

  function select(chunk) {
    chunks(chunk.closest(".gp-strip")).forEach((other) => {
      other.setAttribute("aria-checked", String(other === chunk));
      other.tabIndex = other === chunk ? 0 : -1;
    });
    show(chunk);
  }

  function seek(chunk) {
    const audio = uploaded();
    if (audio && audio.readyState > 0) audio.currentTime = Number(chunk.dataset.start);
  }

  function row(button) {
    return button.closest(".gp-song").querySelector(".gp-seek");
  }

  function toggle(button) {
    if (playing !== button) {
      if (playing) stop();
      playing = button;
      player.src = new URL(button.dataset.src, document.baseURI).href;
      player.currentTime = Number(button.dataset.start) || 0;
    }
    if (player.paused) {
      uploaded()?.pause();
      player.play().catch(stop);
    } else player.pause();
  }

  function stop() {
    player.pause();
    if (playing?.isConnected) {
      playing.classList.remove("gp-on");
      row(playing).hidden = true;
    }
    playing = null;
  }

  player.addEventListener("play", () => {
    playing?.classList.add("gp-on");
    if (playing) row(playing).hidden = false;
  });
  player.addEventListener("pause", () => playing?.classList.remove("gp-on"));
  player.addEventListener("ended", stop);
  player.addEventListener("timeupdate", () => {
    if (!playing) return;
    if (!playing.isConnected) return stop(); // another answer has taken its place
    row(playing).max = player.duration || 1;
    row(playing).value = player.currentTime;
  });

  document.addEventListener("click", (event) => {
    const chunk = event.target.closest?.(".gp-chunk");
    if (chunk) {
      select(chunk);
      seek(chunk);
    }
    const button = event.target.closest?.(".gp-play");
    if (button) toggle(button);
  });

  document.addEventListener("keydown", (event) => {
    const chunk = event.target.closest?.(".gp-chunk");
    if (!chunk) return;
    const all = chunks(chunk.closest(".gp-strip"));
    const at = all.indexOf(chunk);
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = all[Math.min(Math.max(to, 0), all.length - 1)];
    select(next);
    seek(next);
    next.focus();
  });

  document.addEventListener("pointerover", (event) => {
    const chunk = event.target.closest?.(".gp-chunk");
    if (chunk) show(chunk);
  });

  document.addEventListener("pointerout", (event) => {
    const strip = event.target.closest?.(".gp-strip");
    if (strip && !strip.contains(event.relatedTarget)) {
      const selected = strip.querySelector('[aria-checked="true"]');
      if (selected) show(selected);
    }
  });

  document.addEventListener("input", (event) => {
    if (event.target.matches?.(".gp-seek")) player.currentTime = Number(event.target.value);
  });

  // media events do not bubble, but they can be captured: the song that was dropped is playing
  document.addEventListener("play", (event) => event.target.closest?.("#gp-song") && player.pause(), true);
  document.addEventListener(
    "timeupdate",
    (event) => {
      if (!event.target.closest?.("#gp-song")) return;
      const timeline = document.querySelector(".gp-timeline");
      if (!timeline) return;
      const share = event.target.currentTime / Number(timeline.dataset.seconds);
      const line = timeline.querySelector(".gp-head-line");
      line.style.left = `${100 * Math.min(share, 1)}%`;
      line.hidden = false;
      if (event.target.paused) return;
      const now = chunks(timeline).filter((c) => Number(c.dataset.start) <= event.target.currentTime).pop();
      if (now && now.getAttribute("aria-checked") !== "true") select(now);
    },
    true,
  );
})();
