// The page: one image in, one answer out. What the service says becomes text, never markup;
// shares become custom properties, since the content policy allows no style attributes.

const $ = (id) => document.getElementById(id);
const TYPES = ["image/jpeg", "image/png", "image/webp"];
const WORDS = { positive: "Positive", negative: "Negative", refer: "Refer to a person" };
const KNOWN = { true: "No", false: "Yes" };
// All that the page remembers; the key is nowhere else.
const now = { key: "", model: null, file: null, name: null, answer: null, prevalence: null, asking: null };

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Put each text where it belongs; what has none is hidden. */
function say(texts) {
  for (const [id, text] of Object.entries(texts)) {
    $(id).hidden = !text;
    $(id).textContent = text || "";
  }
}

function percent(share, digits = 1) {
  const least = 10 ** -digits;
  if (share > 0 && share * 100 < least) return `<${least}%`;
  if (share < 1 && share * 100 > 100 - least) return `>${(100 - least).toFixed(digits)}%`;
  return `${(share * 100).toFixed(digits)}%`;
}

/** The answer's share and thresholds, with digits enough to tell them apart, and none of these as "<0.1%". */
function apart(...shares) {
  const texts = [1, 2, 3, 4, 5, 6, 7, 8].map((digits) => shares.map((share) => percent(share, digits)));
  const clear = ([, ...rest], all) => new Set(all).size === new Set(shares).size && !/[<>]/.test(rest);
  return texts.find((each) => clear(each, each)) ?? texts.at(-1);
}

function row(name, note, share) {
  const head = el("th", { scope: "row" }, name, el("small", {}, note));
  if (share === undefined) return el("tr", {}, head, el("td", { colspan: 2, class: "muted" }, "not asked"));
  const track = el("span", { class: "track" }, el("span"));
  track.style.setProperty("--p", share);
  return el("tr", {}, head, el("td", { class: "bar", "aria-hidden": "true" }, track), el("td", { class: "share" }, percent(share)));
}

/** What the service answers, or an error whose message is for people. */
async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(now.key && { Authorization: `Bearer ${now.key}` }) };
  const answer = await fetch(new URL(path, document.baseURI), { ...options, headers, credentials: "omit" }).catch(() => {
    throw new Error("The service cannot be reached. Check that it is up, then try again.");
  });
  if (answer.ok) return answer;
  const text = await answer.text();
  let problem = {};
  try { problem = JSON.parse(text) ?? {}; } catch { /* Ray Serve itself answers in plain text. */ }
  const wait = answer.headers.get("retry-after");
  const detail = problem.detail ?? (text.slice(0, 300) || answer.statusText);
  const message = wait ? `${detail} Try again in ${wait} s.` : detail;
  throw { message, status: answer.status, title: problem.title, id: problem.request_id };
}

/** Do it, say that it is under way, and show what went wrong; only the newest question counts. */
async function doing(action) {
  now.asking?.abort();
  const mine = (now.asking = new AbortController());
  $("alert").replaceChildren();
  $("answer").setAttribute("aria-busy", "true");
  try {
    await action(mine.signal);
    $("key-form").hidden = true;
  } catch (error) {
    if (mine.signal.aborted) return;
    complain(error);
    document.body.classList.toggle("answered", now.answer !== null);
    $("key-form").hidden = error.status !== 401;
    $("key").focus();  // goes nowhere while it is hidden
  } finally {
    if (now.asking === mine) $("answer").setAttribute("aria-busy", "false");
  }
}

function complain({ title = "That did not work", message, id = "" }) {
  const request = el("div", { class: "small" }, id && `Request ${id}`);
  $("alert").replaceChildren(el("div", { class: "alert" }, el("strong", {}, title), message, request));
}

function useKey(event) {
  event.preventDefault();
  [now.key, $("key").value] = [$("key").value.trim(), ""];
  doing(now.file ? predict : load);
}

function query() {
  const asked = new URLSearchParams({ members: "true" });
  if ($("point").value) asked.set("operating_point", $("point").value);
  if (now.prevalence) asked.set("prevalence", `${now.model.positive}:${now.prevalence}`);
  return asked;
}

const kind = () => (TYPES.includes(now.file.type) ? now.file.type : "application/octet-stream");
const post = (signal) => ({ method: "POST", body: now.file, headers: { "Content-Type": kind() }, signal });

async function predict(signal) {
  now.answer = null;
  if (!now.model) await load(signal);
  const asked = query();
  now.answer = await (await ask(`v1/predict?${asked}`, post(signal))).json();
  draw(now.answer, asked);
}

async function explain(signal) {
  if (!now.answer) await predict(signal);
  const path = `v1/explain?class=${encodeURIComponent(now.name)}`;
  const { class_name: name, overlay_png: png, map } = (await (await ask(path, post(signal))).json()).explanation;
  const found = map.flat().some((heat) => heat > 0);
  Object.assign($("overlay"), { src: `data:image/png;base64,${png}`, alt: `Heat map: where the image speaks for ${name}` });
  $("overlay").hidden = $("fader").hidden = !found;
  const lies = found ? `A coarse map: brightest where the image speaks most for ${name}. It is not the lesion's outline.`
    : `Nothing in the image speaks for ${name}, so there is no map to show.`;
  say({ "look-said": lies, said: lies });
}

async function load(signal) {
  now.model = await (await ask("v1/model", { signal })).json();
  const { bundle, positive, classes, members, degraded, operating_points: points, prevalence } = now.model;
  say({
    "bundle-name": `${bundle.name} ${bundle.version}`, degraded: degraded && `Degraded: ${degraded}`,
    tells: `${members.length} members of ${bundle.name} tell ${classes.join(", ")}.`,
    "prevalence-label": `Prevalence of ${positive}, if you know it`,
    "prevalence-said": `How common it is where you work; ${percent(prevalence[positive] ?? 0)} of the training data.`,
  });
  $("point").replaceChildren(...points.map(({ name, certified }) =>
    el("option", { value: name }, `${name} (${certified ? "certified" : "not certified"})`)));
  [$("point-field").hidden, $("prevalence-form").hidden] = [!points.length, !positive];
  $("question").hidden = !points.length && !positive;
  drawPoint();
  drawExamples(now.model.examples);
}

function draw(answer, asked) {
  const [prediction] = answer.predictions;
  const { probabilities, at_prevalence: shifted, decision, operating_point: point, uncertainty, novel } = prediction;
  const ranked = Object.entries(probabilities).sort((one, other) => other[1] - one[1]);
  const name = (now.name = now.model.positive in probabilities ? now.model.positive : ranked[0][0]), share = probabilities[name];
  document.body.classList.add("answered");
  const first = $("result").classList.replace("stale", "fresh");
  $("result").dataset.decision = decision ?? "none";
  [$("look").hidden, $("shifted").hidden] = [!now.model.explain, !shifted];
  const asIf = shifted && `where ${Number((now.prevalence * 100).toPrecision(6))}% are ${name}`;
  say({
    "figure-label": name === now.model.positive ? `Probability of ${name}` : `Most probable: ${name}`,
    figure: percent(share), "shifted-label": asIf, "shifted-figure": shifted && percent(shifted[name]),
    "decision-word": WORDS[decision], degraded: answer.degraded && `Degraded: ${answer.degraded}`,
    spread: uncertainty.spread == null ? "One asked" : `± ${(uncertainty.spread * 100).toFixed(1)} points`, entropy: uncertainty.entropy.toFixed(2), known: KNOWN[novel] ?? "Not measured",
    said: `${name} ${percent(share)}. ${decision ? `${WORDS[decision]}, at ${point.name}.` : ""}`,
  });
  drawScale(name, share, point, decision);
  drawUsed(prediction);
  $("classes").hidden = ranked.length < 3;
  $("classes-body").replaceChildren(...ranked.map(([each, value]) => row(each, "", value)));
  drawVotes(prediction.members ?? {}, prediction.asked, name);
  drawRepeat(answer, prediction, asked);
  if (first && $("answer").getBoundingClientRect().top > innerHeight * 0.7) $("answer").scrollIntoView();
}

function drawScale(name, share, point, decision) {
  const scale = $("scale");
  const [at, from] = [point?.threshold ?? 1, point?.refer_from ?? point?.threshold ?? 1];
  for (const [key, value] of Object.entries({ p: share, at, from })) scale.style.setProperty(`--${key}`, value);
  scale.classList.toggle("plain", !point);
  const [low, high] = scale.querySelectorAll(".tick");
  low.hidden = from >= at;
  // Two words side by side need room; the sentence below says the band in any case.
  const [its, starts, ends] = apart(share, from, at);
  low.dataset.text = at - from > 0.12 && from > 0.2 ? `refer from ${starts}` : "";
  high.dataset.text = `threshold ${ends}`;
  const next = from < at ? `the refer band, ${starts} to ${ends}` : `the threshold of ${ends}`;
  const why = {
    positive: `${its} reaches the threshold of ${ends}.`,
    refer: `${its} lies in ${next}: a person should look.`,
    negative: `${its} is below ${next}.`,
  }[decision] ?? "This bundle makes no decision from it.";
  $("why").textContent = why;
  scale.setAttribute("aria-label", `Probability of ${name} ${percent(share)}. ${why}`);
}

function drawUsed({ operating_point: point, warnings, novel }) {
  $("used").hidden = !point;
  $("certified").className = `chip ${point?.certified ? "yes" : "no"}`;
  say({ certified: point?.certified ? "✓ certified" : "not certified", "used-name": `${point?.name}:`, "used-reason": point?.reason });
  const lines = warnings.map(({ detail }) => ["Warning: ", detail]);
  if (novel) lines.unshift(["Unlike the training images: ", "the answer may mean little here."]);
  $("warnings").replaceChildren(...lines.map(([head, text]) => el("li", {}, el("strong", {}, head), text)));
  $("warnings").hidden = !lines.length;
}

function drawVotes(members, asked, name) {
  const known = new Map(now.model.members.map((member) => [member.name, member]));
  // A canary's members, or those of a bundle swapped in since, are none that this page knows.
  const names = Object.keys(members).every((each) => known.has(each)) ? [...known.keys()] : Object.keys(members);
  const enough = asked < names.length && now.model.cascade ? "; the first of the cascade were enough" : "";
  say({ asked: `${asked} of ${names.length} members answered${enough}.`, "votes-for": name });
  const note = (member) => `${member.backbone}, ${member.image_size} px, weight ${member.weight.toFixed(2)}`;
  $("votes-body").replaceChildren(...names.map((each) =>
    row(each, known.has(each) ? note(known.get(each)) : "", members[each]?.[name])));
}

function drawRepeat(answer, { width, height, sha256 }, asked) {
  // The line is for a shell: a file's name enters it only where it is of plain letters.
  const plain = /^[\p{L}\p{N}_][\p{L}\p{N}_. -]*$/u.test(now.file.name);
  const file = plain ? now.file.name : `image.${kind().split("/")[1]}`;
  const key = now.key ? ['  -H "Authorization: Bearer $CONSILIUM_KEY" \\'] : [];
  $("curl").textContent = ["curl \\", `  -H 'Content-Type: ${kind()}' \\`, ...key,
    `  --data-binary '@${file}' \\`, `  '${new URL(`v1/predict?${asked}`, document.baseURI)}'`].join("\n");
  const { bundle: { name, version, digest }, request_id: request } = answer;
  say({ answerer: `${name}, version ${version}`, digest, request, size: `${width} × ${height} pixels`, sha256,
    copy: "Copy", json: JSON.stringify(answer, null, 2) });
}

function drawPoint() {
  const point = now.model?.operating_points.find(({ name }) => name === $("point").value);
  if (!point) return;
  const span = (rate, [low, high]) => `${percent(rate)} (${percent(low, 0)} to ${percent(high, 0)})`;
  const referred = point.refer_from === null ? "" : `, ${percent(point.referred)} referred`;
  $("point-said").textContent = `Asked: ${point.target}. On ${point.n_positive} positive and ${point.n_negative} ` +
    `negative held-back cases: sensitivity ${span(point.sensitivity, point.sensitivity_interval)}, ` +
    `specificity ${span(point.specificity, point.specificity_interval)}${referred}.`;
}

/** Thumbnails, fetched and not linked: an image element would send no key. */
async function drawExamples(paths) {
  const found = await Promise.allSettled(paths.map(async (path) => (await ask(path)).blob()));
  const blobs = found.flatMap(({ value }) => value ?? []);
  $("thumbs").replaceChildren(...blobs.map((blob, index) => {
    const button = el("button", { type: "button", "aria-label": `Try example ${index + 1}` });
    button.append(el("img", { src: URL.createObjectURL(blob), alt: "" }));
    const file = new File([blob], `example-${index + 1}.${blob.type.split("/")[1]}`, { type: blob.type });
    button.addEventListener("click", () => choose(file));
    return el("li", {}, button);
  }));
}

function choose(file) {
  if (!file) return;
  now.file = file;
  $("result").classList.add("stale");  // no answer may stand beside another image
  $("overlay").hidden = $("fader").hidden = true;
  URL.revokeObjectURL($("preview").src);
  $("preview").src = URL.createObjectURL(file);
  $("preview").alt = `The chosen image, ${file.name}`;
  $("drop").classList.add("full");
  $("drop-title").textContent = "Choose another image";
  say({ "file-name": `${file.name}, ${Math.max(1, Math.round(file.size / 1024))} KB`, said: "", "look-said": "" });
  doing(predict);
}

function drawPreview() {
  const { naturalWidth: width, naturalHeight: height } = $("preview");
  $("stage").hidden = !width;
  $("frame").style.setProperty("--ratio", width / height || 1);
}

function applyPrevalence(event) {
  event.preventDefault();
  const field = $("prevalence");
  field.setAttribute("aria-invalid", String(!field.checkValidity()));
  if (!field.checkValidity()) return complain(new Error("Prevalence is a percentage between 0 and 100, such as 2."));
  now.prevalence = field.value ? Number((field.value / 100).toPrecision(9)) : null;
  if (now.file) doing(predict);
}

async function copy() {
  try { await navigator.clipboard.writeText($("curl").textContent); } catch {  // plain http from another machine has no clipboard
    getSelection().selectAllChildren($("curl"));
    document.execCommand("copy");
  }
  say({ copy: "Copied", said: "Copied" });
}

const on = (id, event, handler) => $(id).addEventListener(event, handler);
const over = (event, is) => { event.preventDefault(); $("drop").classList.toggle("over", is); };
on("file", "change", () => { choose($("file").files[0]); $("file").value = ""; });
addEventListener("paste", (event) => choose(event.clipboardData?.files[0]));
addEventListener("dragover", (event) => over(event, true));
addEventListener("dragleave", (event) => over(event, event.relatedTarget !== null));
addEventListener("drop", (event) => { over(event, false); choose(event.dataTransfer?.files[0]); });
$("preview").onload = $("preview").onerror = drawPreview;
on("point", "change", () => { drawPoint(); if (now.file) doing(predict); });
on("prevalence-form", "submit", applyPrevalence);
on("explain", "click", () => doing(explain));
on("opacity", "input", () => {
  $("overlay").style.setProperty("--opacity", $("opacity").value / 100);
  $("opacity-said").textContent = `${$("opacity").value}%`;
});
on("copy", "click", copy);
on("key-form", "submit", useKey);
doing(load);
