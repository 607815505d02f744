"use strict";
(() => {
  // Every text of the catalog and the service becomes a text node or an attribute that holds no address; addresses
  // pass through address() below. Nothing here parses markup.

  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const head = JSON.parse(one("#head-data").textContent);
  const jobs = JSON.parse(one("#job-data").textContent);

  const STATUS = {
    completed: "Completed", partial: "Partial", failed: "Failed", rejected: "Refused", invalid: "Invalid",
    held: "Held", timed_out: "Timed out", running: "Running", planned: "Planned",
  };
  const WHY = {
    failed: "The service could not make it.",
    rejected: "The service refused what was sent.",
    invalid: "Not sent: something in the sheet has to be corrected.",
    held: "It is not known whether this was bought. Whoever runs the batch can settle it.",
    timed_out: "It did not end in time. It is still asked about.",
    running: "It is being made.",
    planned: "Not sent yet.",
  };
  //: what a verdict makes sense of: the others have nothing that could be made again
  const ENDED = new Set(["completed", "partial", "failed", "rejected", "timed_out"]);

  // -- small tools -------------------------------------------------------------------------------------------

  function el(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === undefined || value === null || value === false) continue;
      if (name === "class") element.className = value;
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== undefined && child !== null && child !== ""));
    return element;
  }

  // Text of others: its own direction, so that marks in it move nothing around it.
  const theirs = (tag, text, attributes = {}) => el(tag, { dir: "auto", ...attributes }, text);

  function address(src) {
    if (!src) return null;
    if (/^\.\//.test(src)) return src;
    try {
      return ["http:", "https:"].includes(new URL(src).protocol) ? src : null;
    } catch {
      return null;
    }
  }

  const number = (n) => n.toLocaleString("en");
  const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;
  const nameOf = (job) => (job.key ? (job.variant ? `${job.key}, ${job.variant}` : job.key) : `row ${job.row}`);

  // -- verdicts ----------------------------------------------------------------------------------------------

  const STORE = `lamina-batch picks 1 ${JSON.stringify([head.service, head.app_id, head.pipeline])}`;
  const idOf = (job) => JSON.stringify([job.key, job.variant, job.sha]);
  let verdicts = new Map();

  function load() {
    try {
      verdicts = new Map(Object.entries(JSON.parse(localStorage.getItem(STORE)) ?? {}));
    } catch {
      // Not kept, or not ours: the page works without.
    }
  }

  let keeps = true;
  function keep() {
    try {
      localStorage.setItem(STORE, JSON.stringify(Object.fromEntries(verdicts)));
    } catch {
      if (keeps) say("This browser does not keep verdicts: save them before you leave");
      keeps = false;
    }
  }

  // A verdict is about what was looked at. After the row has been made again it is an earlier one.
  function verdictOf(job) {
    const found = verdicts.get(idOf(job));
    const now = found && (found.execution ?? null) === (job.execution ?? null);
    return { verdict: (now && found.verdict) || null, note: (now && found.note) || "", earlier: now ? null : found };
  }

  function judge(job, change) {
    if (!ENDED.has(job.status)) return;
    const { verdict, note } = verdictOf(job);
    const next = { verdict, note, ...change, execution: job.execution ?? null };
    if (next.verdict || next.note) verdicts.set(idOf(job), next);
    else verdicts.delete(idOf(job));
    keep();
    refresh(job);
    count();
  }

  function toggle(job, verdict) {
    const next = verdictOf(job).verdict === verdict ? null : verdict;
    judge(job, { verdict: next });
    if (ENDED.has(job.status)) say(`${nameOf(job)} ${next ? VERDICT[next].toLowerCase() : "to judge"}`);
  }

  const VERDICT = { pick: "Picked", reject: "Rejected" };

  function save() {
    const picks = [];
    const seen = new Set();
    for (const job of jobs) {
      const { verdict, note } = verdictOf(job);
      if (!verdict || seen.has(idOf(job))) continue;
      seen.add(idOf(job));
      picks.push({
        key: job.key, variant: job.variant, inputs_sha256: job.sha, execution_id: job.execution ?? null, verdict, note,
      });
    }
    if (!picks.length) {
      say("Nothing is picked or rejected yet");
      return;
    }
    const file = {
      format: "lamina-batch picks", version: 1, pipeline: head.pipeline, app: head.app_id, service: head.service,
      saved_at: new Date().toISOString(), picks,
    };
    const name = `${head.pipeline.replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^[.-]+/, "") || "results"}-picks.json`;
    const url = URL.createObjectURL(new Blob([`${JSON.stringify(file, null, 1)}\n`], { type: "application/json" }));
    const link = el("a", { download: name });
    link.href = url;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    const rejected = picks.filter((pick) => pick.verdict === "reject").length;
    one("#saved-what").textContent =
      `${name}: ${number(picks.length - rejected)} picked, ${number(rejected)} rejected.`;
    one("#saved-command").textContent =
      `lamina-batch run ${head.file} --rerun-file ${name}${head.service === "sandbox" ? " --sandbox" : ""}`;
    one("#saved").showModal();
  }

  // -- media -------------------------------------------------------------------------------------------------

  // Outputs of one label mostly have one shape: what the last one had is how much room the next one gets.
  const shapes = new Map();
  const shapeName = (medium) => `${medium.kind} ${medium.label}`;

  function shape(tile, medium, width, height) {
    if (!width || !height) return;
    const ratio = Math.min(2, Math.max(0.5, width / height));
    shapes.set(shapeName(medium), ratio);
    form(tile, ratio);
  }

  function form(tile, ratio) {
    tile.style.setProperty("--ratio", ratio.toFixed(3));
    tile.classList.toggle("wide", ratio > 1.25);
  }

  for (const job of jobs) for (const medium of job.sources ?? []) medium.sent = true;

  function gone(what, src, sent) {
    const why = sent && head.service === "sandbox"
      ? "The pictures of sample rows do not exist; another address may have expired." : "Its address may have expired.";
    const link = el("a", { class: "gone-link", target: "_blank", rel: "noopener noreferrer" }, "open its address");
    link.href = src;
    return el("div", { class: "gone" }, el("strong", {}, `${what} not loaded`),
      el("span", {}, src.startsWith("./") ? "The file is not where it was saved." : why), link);
  }

  // The element that shows it, for a tile or the lightbox.
  function show(medium, { alt, tile, large }) {
    const src = address(medium.src);
    if (src && medium.kind === "image") {
      const image = el("img", { alt, loading: large ? "eager" : "lazy", decoding: "async", draggable: "false" });
      image.addEventListener("load", () => {
        image.classList.add("there");
        if (tile) shape(tile, medium, image.naturalWidth, image.naturalHeight);
      });
      image.addEventListener("error", () => (image.closest(".open") ?? image).replaceWith(gone("Picture", src, medium.sent)));
      image.src = src;
      return image;
    }
    if (src && (medium.kind === "video" || medium.kind === "audio")) {
      const player = el(medium.kind, { controls: true, preload: "metadata", playsinline: true, "aria-label": alt });
      player.addEventListener("loadedmetadata", () => {
        if (tile) shape(tile, medium, player.videoWidth, player.videoHeight);
      });
      player.addEventListener("error", () => player.replaceWith(gone(medium.kind === "video" ? "Video" : "Sound", src, medium.sent)));
      player.src = src;
      return player;
    }
    if (src) {
      const link = el("a", { class: "gone-link", target: "_blank", rel: "noopener noreferrer" }, "Open");
      link.href = src;
      return link;
    }
    if (medium.text) return theirs("p", medium.text, { class: "words" });
    return el("div", { class: "gone" }, el("strong", {}, "Not made"), theirs("span", medium.error ?? ""));
  }

  const opens = (medium) => Boolean(address(medium.src)) || Boolean(medium.text);

  function tileOf(job, medium, index) {
    const tile = el("figure", { class: `tile ${medium.kind}${opens(medium) ? "" : " missing"}` });
    const ratio = shapes.get(shapeName(medium)) ?? (medium.kind === "video" ? 16 / 9 : 0.8);
    form(tile, medium.kind === "audio" ? 2 : ratio);
    const shown = show(medium, { alt: `${medium.label} of ${nameOf(job)}`, tile });
    const frame = el("div", { class: "frame" });
    if (medium.kind === "image" && address(medium.src)) {
      const button = el("button", { type: "button", class: "open", "data-open": index }, shown);
      frame.append(button);
    } else frame.append(shown);
    const caption = el("figcaption", {}, theirs("span", medium.label));
    if (opens(medium) && medium.kind !== "image" && medium.kind !== "link") {
      const word = medium.kind === "text" ? "Read" : "Enlarge";
      caption.append(el("button", {
        type: "button", class: "enlarge", "data-open": index, "aria-label": `${word} ${medium.label} of ${nameOf(job)}`,
      }, word));
    }
    tile.append(frame, caption);
    if (medium.error && opens(medium)) tile.append(theirs("p", medium.error, { class: "fault" }));
    return tile;
  }

  // The order of the lightbox: what was made, then what it was made of.
  const mediaOf = (job) => [...(job.outputs ?? []), ...(job.sources ?? [])];

  // -- a card ------------------------------------------------------------------------------------------------

  function factsOf(job) {
    const pairs = job.inputs ?? [];
    if (!pairs.length) return null;
    const list = el("dl", { class: "facts" });
    for (const [name, value] of pairs) list.append(el("div", {}, theirs("dt", name), theirs("dd", value)));
    return list;
  }

  function reasonOf(job) {
    const box = el("div", { class: "reason" });
    box.append(el("p", { class: "reason-head" }, WHY[job.status] ?? "Nothing came out."));
    if (job.reasons) {
      const list = el("ul", {});
      for (const [where, value, message, hint] of job.reasons) {
        list.append(el("li", {}, theirs("strong", where || "row"), " ", value ? theirs("q", value) : "",
          theirs("span", message, { class: "what" }), hint ? theirs("span", hint, { class: "hint" }) : ""));
      }
      box.append(list);
    } else if (job.message) box.append(theirs("p", job.message, { class: "what" }));
    return box;
  }

  function judgeOf(job) {
    const { verdict, note, earlier } = verdictOf(job);
    const box = el("div", { class: "judge" });
    if (!ENDED.has(job.status)) return box;
    box.append(verdictButtons(job, verdict));
    if (earlier) {
      const said = earlier.verdict === "reject" ? "Rejected before it was made again" : "Judged before it was made again";
      box.append(el("p", { class: "earlier" }, said, earlier.note ? ": " : "", earlier.note ? theirs("q", earlier.note) : ""));
    }
    const field = el("textarea", {
      rows: 1, class: "note", dir: "auto", maxlength: 2000, "aria-label": `Note on ${nameOf(job)}`,
      placeholder: verdict === "reject" ? "What should be different?" : "Note",
    });
    field.value = note;
    field.addEventListener("input", () => {
      fit(field);
      judge(job, { note: field.value });
    });
    box.append(field);
    return box;
  }

  function fit(field) {
    field.style.height = "auto";
    if (field.scrollHeight) field.style.height = `${field.scrollHeight + 2}px`;
  }

  function verdictButtons(job, verdict) {
    const group = el("div", { class: "verdict", role: "group", "aria-label": `Verdict on ${nameOf(job)}` });
    for (const [name, word] of [["pick", "Pick"], ["reject", "Reject"]]) {
      const on = verdict === name;
      const button = el("button", { type: "button", class: `v-${name}`, "aria-pressed": String(on) }, on ? VERDICT[name] : word);
      button.addEventListener("click", () => toggle(job, name));
      group.append(button);
    }
    return group;
  }

  function cardOf(position) {
    const job = jobs[shown[position]];
    const { verdict, note } = verdictOf(job);
    const title = job.title ?? (job.key || `Row ${job.row}`);
    const card = el("article", {
      class: `card s-${job.status}${verdict ? ` is-${verdict}` : ""}`, tabindex: position === current ? 0 : -1,
      "aria-labelledby": `t${shown[position]}`, "data-position": position,
    });
    const who = el("div", { class: "who" },
      el("p", { class: "key" }, job.title && job.key ? theirs("span", job.key) : "",
        el("span", { class: "row" }, job.row ? `row ${number(job.row)}` : "no longer in the source",
          job.source ? " of " : "", job.source ? theirs("span", job.source) : "")),
      theirs("h2", title, { id: `t${shown[position]}` }));
    if (job.variant) {
      who.append(el("p", { class: "variant" }, ...job.variant.split("; ").map((part) => {
        const at = part.indexOf("=");
        return theirs("span", at < 0 ? part : part.slice(at + 1), { title: part });
      })));
    }
    who.append(el("p", { class: "state" }, el("i", { class: "dot", "aria-hidden": "true" }), el("span", {}, STATUS[job.status] ?? job.status)));
    if (job.reused) who.append(el("p", { class: "small" }, "Same inputs as ", theirs("span", job.reused), ", made once"));
    const facts = factsOf(job);
    const outputs = job.outputs ?? [];
    const sources = job.sources ?? [];
    const media = el("div", { class: "media" });
    if (sources.length) {
      const strip = el("div", { class: "sources" }, el("p", { class: "heading" }, "Source"));
      sources.forEach((medium, i) => strip.append(tileOf(job, medium, outputs.length + i)));
      media.append(strip);
    }
    const made = el("div", { class: "made" });
    const inMedia = outputs.some((medium) => address(medium.src) || medium.text);
    if (!inMedia) made.append(reasonOf(job));
    else if (job.message) made.append(theirs("p", job.message, { class: "remark" }));
    const tiles = outputs.map((medium, i) => tileOf(job, medium, i));
    for (const text of [false, true]) {
      const some = tiles.filter((_, i) => (outputs[i].kind === "text") === text);
      if (some.length) made.append(el("div", { class: "outputs", "data-count": some.length }, ...some));
    }
    media.append(made);
    const print = verdict ? theirs("p", `${VERDICT[verdict]}${note ? `: ${note}` : ""}`, { class: "print-verdict" }) : "";
    card.append(who, judgeOf(job), facts ?? "", media, print);
    return card;
  }

  // A verdict changed: only what shows it is made again, so that neither pictures nor the focus are lost.
  function refresh(job) {
    const id = idOf(job);
    for (const card of all(".card")) {
      const other = jobs[shown[Number(card.dataset.position)]];
      if (idOf(other) !== id) continue;
      const { verdict, note } = verdictOf(other);
      card.classList.toggle("is-pick", verdict === "pick");
      card.classList.toggle("is-reject", verdict === "reject");
      paint(one(".judge", card), verdict);
      const field = one(".note", card);
      if (field) {
        field.placeholder = verdict === "reject" ? "What should be different?" : "Note";
        if (field.value !== note) field.value = note;
      }
      one(".print-verdict", card)?.remove();
      if (verdict) card.append(theirs("p", `${VERDICT[verdict]}${note ? `: ${note}` : ""}`, { class: "print-verdict" }));
    }
    if (box.open && idOf(jobs[shown[looking.position]]) === id) paint(one("#box-verdict"), verdictOf(job).verdict);
  }

  function paint(root, verdict) {
    for (const [name, word] of [["pick", "Pick"], ["reject", "Reject"]]) {
      const button = one(`.v-${name}`, root);
      if (!button) continue;
      button.setAttribute("aria-pressed", String(verdict === name));
      button.textContent = verdict === name ? VERDICT[name] : word;
    }
  }

  // -- the list: only what is near is there ------------------------------------------------------------------

  const PER_CHUNK = 5;
  const list = one("#jobs");
  let shown = jobs.map((_, index) => index);
  let chunks = [];
  let current = 0;
  // A guess at a card's height until one has been seen.
  let tall = { picture: 440, bare: 220 };

  const hasPicture = (job) => (job.outputs ?? []).some((m) => m.src) || (job.sources ?? []).some((m) => m.src);

  function guess(chunk) {
    let height = 0;
    for (let i = chunk.from; i < chunk.to; i += 1) height += hasPicture(jobs[shown[i]]) ? tall.picture : tall.bare;
    return height;
  }

  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const chunk = chunks[Number(entry.target.dataset.chunk)];
      if (!chunk || chunk.element !== entry.target) continue;
      if (entry.isIntersecting) mount(chunk);
      else if (!printing) unmount(chunk);
    }
  }, { rootMargin: "1400px 0px" });

  function mount(chunk) {
    if (chunk.mounted) return;
    chunk.mounted = true;
    const cards = [];
    for (let i = chunk.from; i < chunk.to; i += 1) cards.push(cardOf(i));
    chunk.element.replaceChildren(...cards);
    chunk.element.style.height = "";
    all(".note", chunk.element).filter((field) => field.value).forEach(fit);
    learn(chunk);
  }

  function unmount(chunk) {
    if (!chunk.mounted || chunk.element.contains(document.activeElement)) return;
    chunk.height = chunk.element.offsetHeight;
    chunk.element.style.height = `${chunk.height}px`;
    chunk.element.replaceChildren();
    chunk.mounted = false;
  }

  // The first cards that are there say how tall the others will be.
  let learnt = false;
  function learn(chunk) {
    if (learnt) return;
    learnt = true;
    const sums = { picture: [0, 0], bare: [0, 0] };
    all(".card", chunk.element).forEach((card, i) => {
      const sum = sums[hasPicture(jobs[shown[chunk.from + i]]) ? "picture" : "bare"];
      sum[0] += card.offsetHeight;
      sum[1] += 1;
    });
    for (const kind of ["picture", "bare"]) if (sums[kind][1]) tall[kind] = sums[kind][0] / sums[kind][1];
    for (const other of chunks) if (!other.mounted) other.element.style.height = `${guess(other)}px`;
  }

  function layout() {
    near.disconnect();
    chunks = [];
    for (let from = 0; from < shown.length; from += PER_CHUNK) {
      const chunk = { from, to: Math.min(shown.length, from + PER_CHUNK), mounted: false };
      chunk.element = el("div", { class: "chunk", "data-chunk": chunks.length });
      chunks.push(chunk);
    }
    current = 0;
    for (const chunk of chunks) chunk.element.style.height = `${guess(chunk)}px`;
    list.replaceChildren(...chunks.map((chunk) => chunk.element));
    if (!chunks.length) list.append(el("p", { class: "nothing" }, jobs.length ? "Nothing here fits the filters." : "There are no rows."));
    else mount(chunks[0]);
    for (const chunk of chunks) near.observe(chunk.element);
  }

  function cardAt(position) {
    const chunk = chunks[Math.floor(position / PER_CHUNK)];
    mount(chunk);
    return chunk.element.children[position - chunk.from];
  }

  function go(position) {
    if (!shown.length) return;
    const next = Math.min(shown.length - 1, Math.max(0, position));
    const card = cardAt(next);
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  }

  function step(by) {
    const focused = document.activeElement?.closest?.(".card");
    if (focused) go(Number(focused.dataset.position) + by);
    else {
      // From nowhere: the first that can be seen whole.
      const top = one("#toolbar").getBoundingClientRect().bottom;
      const seen = all(".card").find((card) => card.getBoundingClientRect().top >= top - 40);
      go(seen ? Number(seen.dataset.position) : current);
    }
  }

  list.addEventListener("focusin", (event) => {
    const card = event.target.closest(".card");
    if (!card) return;
    all('.card[tabindex="0"]').forEach((other) => other.setAttribute("tabindex", "-1"));
    card.setAttribute("tabindex", "0");
    current = Number(card.dataset.position);
  });

  list.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open]");
    if (opener) look(Number(opener.closest(".card").dataset.position), Number(opener.dataset.open));
  });

  // -- filters and counts ------------------------------------------------------------------------------------

  const wanted = { status: new Set(), verdict: new Set() };
  const search = one("#search");
  let texts = null;

  function textOf(job) {
    return [
      job.key, job.variant, job.title, job.message, ...(job.inputs ?? []).flat(), ...(job.reasons ?? []).flat(),
      ...mediaOf(job).flatMap((medium) => [medium.label, medium.text, medium.error]),
    ].filter(Boolean).join("\n").toLowerCase();
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length && !texts) texts = jobs.map(textOf);
    shown = [];
    jobs.forEach((job, index) => {
      if (wanted.status.size && !wanted.status.has(job.status)) return;
      if (wanted.verdict.size) {
        const { verdict } = verdictOf(job);
        if (!wanted.verdict.has(verdict ?? (ENDED.has(job.status) ? "open" : ""))) return;
      }
      if (!words.every((word) => texts[index].includes(word))) return;
      shown.push(index);
    });
    layout();
    found();
    const toolbar = one("#toolbar");
    const start = list.offsetTop - toolbar.offsetHeight;
    if (scrollY > start) scrollTo(0, start);
  }

  function found() {
    const filtered = wanted.status.size || wanted.verdict.size || search.value.trim();
    one("#found").textContent = filtered ? `${number(shown.length)} of ${number(jobs.length)}` : "";
  }

  function count() {
    const counts = { pick: 0, reject: 0, open: 0 };
    for (const job of jobs) if (ENDED.has(job.status)) counts[verdictOf(job).verdict ?? "open"] += 1;
    for (const button of all("[data-verdict]")) one("b", button).textContent = number(counts[button.dataset.verdict]);
    one("#export").setAttribute("aria-disabled", String(!(counts.pick + counts.reject)));
  }

  for (const [group, name] of [["status", "data-status"], ["verdict", "data-verdict"]]) {
    for (const button of all(`[${name}]`)) {
      button.addEventListener("click", () => {
        const value = button.getAttribute(name);
        const on = !wanted[group].delete(value);
        if (on) wanted[group].add(value);
        button.setAttribute("aria-pressed", String(on));
        filter();
      });
    }
  }

  let typed = 0;
  search.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(filter, jobs.length > 1000 ? 120 : 0);
  });

  // -- the lightbox ------------------------------------------------------------------------------------------

  const box = one("#lightbox");
  const looking = { position: 0, index: 0 };

  function look(position, index) {
    const job = jobs[shown[position]];
    const media = mediaOf(job);
    if (!media[index]) return;
    Object.assign(looking, { position, index });
    const medium = media[index];
    const figure = show(medium, { alt: `${medium.label} of ${nameOf(job)}`, large: true });
    const stage = one("#stage");
    all("video, audio", stage).forEach((player) => player.pause());
    stage.replaceChildren(...besideOf(job, medium), figure);
    stage.classList.toggle("reading", figure.classList.contains("words"));
    one("#caption").replaceChildren(theirs("strong", job.title ?? nameOf(job)), " ", theirs("span", medium.label));
    one("#caption-more").replaceChildren(theirs("span", nameOf(job)), ` · ${index + 1} of ${media.length}`);
    one("#strip").replaceChildren(...media.map((other, i) => {
      const src = address(other.src);
      const thumb = el("button", {
        type: "button", class: "thumb", "aria-label": other.label, "aria-current": i === index ? "true" : null,
      });
      if (src && other.kind === "image") {
        const image = el("img", { alt: "", decoding: "async" });
        image.src = src;
        thumb.append(image);
      } else thumb.append(other.kind === "text" ? "Aa" : other.kind === "video" ? "▶" : "·");
      thumb.addEventListener("click", () => look(position, i));
      return thumb;
    }));
    const verdict = one("#box-verdict");
    verdict.replaceChildren(...(ENDED.has(job.status) ? [...verdictButtons(job, verdictOf(job).verdict).children] : []));
    if (!box.open) {
      box.showModal();
      document.documentElement.classList.add("looking");
    }
  }

  // What it was made of, beside what was made.
  function besideOf(job, medium) {
    const sources = (job.sources ?? []).filter((source) => source.kind === "image" && address(source.src));
    if (!sources.length || !(job.outputs ?? []).includes(medium)) return [];
    const figures = sources.slice(0, 2).map((source) => {
      const image = el("img", { alt: `${source.label} of ${nameOf(job)}`, decoding: "async" });
      image.src = address(source.src);
      const figure = el("figure", {}, image, theirs("figcaption", source.label));
      image.addEventListener("error", () => figure.remove());
      return figure;
    });
    return [el("div", { class: "beside" }, el("p", { class: "heading" }, "Source"), ...figures)];
  }

  function turn(by) {
    const media = mediaOf(jobs[shown[looking.position]]);
    if (media[looking.index + by]) return look(looking.position, looking.index + by);
    for (let at = looking.position + by; at >= 0 && at < shown.length; at += by) {
      const other = mediaOf(jobs[shown[at]]);
      if (other.length) return look(at, by > 0 ? 0 : other.length - 1);
    }
    return undefined;
  }

  box.addEventListener("close", () => {
    all("video, audio", box).forEach((player) => player.pause());
    one("#stage").replaceChildren();
    document.documentElement.classList.remove("looking");
    go(looking.position);
  });
  box.addEventListener("click", (event) => {
    if (event.target === box || event.target === one("#stage")) box.close();
  });
  one("#previous").addEventListener("click", () => turn(-1));
  one("#next").addEventListener("click", () => turn(1));
  one("#close").addEventListener("click", () => box.close());

  // -- keys --------------------------------------------------------------------------------------------------

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    if (target.matches("input, textarea")) {
      if (event.key !== "Escape") return;
      if (target === search) {
        if (search.value) {
          search.value = "";
          filter();
        }
        target.blur();
      } else target.closest(".card")?.focus();
      event.preventDefault();
      return;
    }
    if (target.matches("video, audio") && event.key !== "Escape") return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = box.open ? BOX_KEYS[key] : all("dialog[open]").length ? undefined : KEYS[key];
    if (act && act(target) !== false) event.preventDefault();
  });

  const focusedJob = () => {
    const card = document.activeElement?.closest?.(".card");
    return card ? jobs[shown[Number(card.dataset.position)]] : null;
  };
  const judged = (verdict) => () => {
    const job = focusedJob();
    if (!job) return false;
    toggle(job, verdict);
    return true;
  };
  const KEYS = {
    j: () => step(1),
    k: () => step(-1),
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    Home: () => go(0),
    End: () => go(shown.length - 1),
    p: judged("pick"),
    r: judged("reject"),
    n: () => {
      const field = document.activeElement?.closest?.(".card")?.querySelector(".note");
      if (!field) return false;
      field.focus();
      return true;
    },
    "/": () => {
      search.focus();
      search.select();
    },
    "?": () => one("#help").showModal(),
    Enter: (target) => {
      if (!target.matches(".card")) return false;
      const position = Number(target.dataset.position);
      if (!mediaOf(jobs[shown[position]]).length) return false;
      look(position, 0);
      return true;
    },
  };
  const BOX_KEYS = {
    ArrowRight: () => turn(1),
    ArrowLeft: () => turn(-1),
    j: () => turn(1),
    k: () => turn(-1),
    p: () => toggle(jobs[shown[looking.position]], "pick"),
    r: () => toggle(jobs[shown[looking.position]], "reject"),
  };

  // -- the rest ----------------------------------------------------------------------------------------------

  const live = el("p", { class: "live", role: "status" });
  document.body.append(live);
  let saying = 0;
  function say(text) {
    // In a dialog what lies outside is not heard.
    (one("dialog[open]") ?? document.body).append(live);
    live.textContent = text;
    live.classList.add("on");
    clearTimeout(saying);
    saying = setTimeout(() => live.classList.remove("on"), 2200);
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = one("#theme");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const tellTheme = () => theme.setAttribute("aria-pressed", String(isDark()));
  theme.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("lamina-batch theme", next);
    } catch {
      // Then it lasts as long as the page.
    }
    tellTheme();
  });
  dark.addEventListener("change", tellTheme);

  // On paper everything has to be there, within reason.
  const MOST_PRINTED = 400;
  let printing = false;
  function spread() {
    printing = true;
    chunks.filter((chunk) => chunk.from < MOST_PRINTED).forEach(mount);
    all("img", list).forEach((image) => (image.loading = "eager"));
    for (const chunk of chunks) chunk.element.classList.toggle("unprinted", !chunk.mounted || chunk.from >= MOST_PRINTED);
    if (shown.length > MOST_PRINTED) {
      const rest = `The first ${number(MOST_PRINTED)} of ${number(shown.length)} jobs. Filter the page to print others.`;
      list.prepend(el("p", { class: "print-note" }, rest));
    }
  }
  addEventListener("beforeprint", () => printing || spread());
  addEventListener("afterprint", () => {
    printing = false;
    one(".print-note")?.remove();
    for (const chunk of chunks) {
      chunk.element.classList.remove("unprinted");
      near.unobserve(chunk.element);
      near.observe(chunk.element);
    }
  });
  one("#print").addEventListener("click", async () => {
    spread();
    say("Loading the pictures to print");
    const waits = all("img", list).map((image) => image.decode().catch(() => {}));
    await Promise.race([Promise.all(waits), new Promise((done) => setTimeout(done, 15000))]);
    print();
  });

  one("#export").addEventListener("click", save);
  one("#keys").addEventListener("click", () => one("#help").showModal());
  addEventListener("storage", (event) => {
    if (event.key !== STORE) return;
    load();
    for (const card of all(".card")) refresh(jobs[shown[Number(card.dataset.position)]]);
    count();
  });

  const made = one("#made");
  const at = new Date(made.dateTime);
  if (!Number.isNaN(at.getTime())) made.textContent = at.toLocaleString("en", { dateStyle: "long", timeStyle: "short" });
  for (const part of all("[data-share]")) part.style.flexGrow = part.dataset.share;

  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    learnt = false;
    const first = chunks.find((chunk) => chunk.mounted);
    if (first) learn(first);
  });

  load();
  tellTheme();
  count();
  layout();
})();
