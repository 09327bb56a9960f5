// A chain: prompt, text with its answer marked, facts, the other chains of the problem, and one beside it.

// Where the answer stands: its last occurrence that is not a part of a longer word or number; else the last box.
function answerSpan(text, answer) {
  const inWord = (char) => char !== undefined && /[\p{L}\p{N}]/u.test(char);
  if (answer) {
    for (let at = text.lastIndexOf(answer); at >= 0; at = at ? text.lastIndexOf(answer, at - 1) : -1) {
      const end = at + answer.length;
      if (!(inWord(text[at - 1]) && inWord(answer[0])) && !(inWord(text[end]) && inWord(answer[answer.length - 1]))) return [at, end];
    }
  }
  const box = text.lastIndexOf("\\boxed{");
  if (box < 0 || answer === null) return null;
  let depth = 0;
  for (let at = box + 6; at < text.length; at++) {
    depth += text[at] === "{" ? 1 : text[at] === "}" ? -1 : 0;
    if (depth === 0) return [box, at + 1];
  }
  return null;
}

// A text with its answer and the words of a search marked.
function marked(text, span, words) {
  const spans = [];
  if (span) spans.push([...span, "answer"]);
  const low = text.toLowerCase();
  for (const word of words) {
    if (word.length < 2 || low.length !== text.length) continue;
    for (let at = low.indexOf(word), n = 0; at >= 0 && n < 500; at = low.indexOf(word, at + word.length), n++) spans.push([at, at + word.length, "found"]);
  }
  spans.sort((a, b) => a[0] - b[0] || (a[2] === "answer" ? -1 : 1));
  const pieces = [];
  let at = 0;
  for (const [start, end, kind] of spans) {
    if (start < at) continue;
    pieces.push(text.slice(at, start), make("mark", kind, text.slice(start, end)));
    at = end;
  }
  pieces.push(text.slice(at));
  return pieces;
}

// Where two texts part, in characters; null: they are the same.
function partingOf(one, other) {
  const least = Math.min(one.length, other.length);
  let at = 0;
  while (at < least && one[at] === other[at]) at++;
  return at === least && one.length === other.length ? null : at;
}

// The step of a recorded chain whose token holds a character of its text; null: it is not recorded.
function stepAt(map, character) {
  if (!map) return null;
  let length = 0;
  const step = map.tokens.findIndex((token) => (length += token.length) > character);
  return step < 0 ? map.tokens.length : step;
}

const words = () => $("search").value.toLowerCase().split(/\s+/).filter(Boolean);

// The place of a chain, and of the one beside it, in the address of the page.
const PLACE = "#chain/";
const placeOf = (report, chain) => [report.problems[chain.problem].id, report.settings[chain.setting].name, chain.sample].map(encodeURIComponent).join("/");

class Viewer {
  constructor(report, problems) {
    this.report = report;
    this.problems = problems;
    this.chain = this.other = null;
    this.sides = ["one", "other"].map((name) => {
      const root = document.querySelector(`[data-side="${name}"]`);
      return { root, map: new AttentionMap(root.querySelector(".map")) };
    });
    $("close").addEventListener("click", () => $("viewer").close());
    $("viewer").addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
    $("viewer").addEventListener("click", (event) => { if (event.target === $("viewer")) $("viewer").close(); });
    for (const button of document.querySelectorAll("[data-go]")) button.addEventListener("click", () => this.go(+button.dataset.go));
    $("beside").addEventListener("input", () => {
      const chosen = $("beside").value;
      this.open(this.chain, chosen === "" ? null : this.report.problems[this.chain.problem].chains[+chosen]);
    });
    $("link").addEventListener("click", () => navigator.clipboard?.writeText(location.href).then(() => { $("link").textContent = "Copied"; }, () => {}));
    $("viewer").addEventListener("keydown", (event) => {
      if (event.target.closest("select, canvas") || event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === "ArrowLeft") this.go(-1);
      if (event.key === "ArrowRight") this.go(1);
    });
    addEventListener("hashchange", () => this.follow());
  }

  // The same settings and samples of the problem before or after, as the table stands.
  go(step) {
    const shown = this.problems().shown;
    const at = shown.findIndex((p) => p.index === this.chain.problem);
    const next = shown[at + step];
    if (!next) return;
    const like = (chain) => next.chains.find((c) => c.setting === chain.setting && c.sample === chain.sample) || next.chains.find((c) => c.setting === chain.setting);
    this.open(like(this.chain) || next.chains[0], this.other && like(this.other));
  }

  // A problem: its most telling sparse chain, and the dense one of the same sample beside it.
  compare(problem) {
    const dense = problem.chains.filter((c) => this.report.settings[c.setting].dense);
    const twin = (chain) => dense.find((c) => c !== chain && c.sample === chain.sample);
    const telling = (chain) => {
      const other = twin(chain);
      const differs = (what) => Boolean(other) && other[what] !== chain[what];
      const more = differs("text") ? 1 + partingOf(chain.text, other.text) / (chain.text.length || 1) : 1 - (chain.share ?? 1);
      return (chain.map ? 8 : 0) + (differs("verdict") ? 4 : 0) + more; // parting late, or reading little
    };
    const sparse = problem.chains.filter((c) => !dense.includes(c));
    const chain = sparse.length ? sparse.reduce((best, c) => (telling(c) > telling(best) ? c : best)) : problem.chains[0];
    this.open(chain, twin(chain));
  }

  // What the address names, if it names a chain.
  follow() {
    if (!location.hash.startsWith(PLACE)) return;
    const named = location.hash.slice(PLACE.length).split("/").map(decodeURIComponent);
    const problem = this.report.problems.find((p) => p.id === named[0]);
    const find = (setting, sample) => problem?.chains.find((c) => this.report.settings[c.setting].name === setting && c.sample === +sample);
    const chain = find(named[1], named[2]);
    if (chain && !(chain === this.chain && $("viewer").open)) this.open(chain, named.length > 3 ? find(named[3], named[4]) : null);
  }

  open(chain, other = null) {
    this.chain = chain;
    this.other = other === chain ? null : other || null;
    const problem = this.report.problems[chain.problem];
    $("viewer-title").textContent = problem.id;
    $("viewer-title").title = problem.id;
    this.drawPicks(problem);
    this.drawBeside(problem);
    this.drawFacts(chain, problem);
    document.querySelector("#prompt pre").replaceChildren(...marked(chain.prompt, null, words()));
    if (!$("viewer").open) $("viewer").showModal();
    $("viewer").scrollTop = 0;
    const parting = this.other ? partingOf(chain.text, this.other.text) : null;
    $("sides").classList.toggle("two", Boolean(this.other));
    $("parting").textContent = !this.other ? "" : parting === null ? "The two chains are the same." : parting === 0 ? "The two chains differ from the first character on." : `The two chains are the same for ${parting.toLocaleString("en")} character${parting === 1 ? "" : "s"}; from there on each stands in full.`;
    this.drawSide(this.sides[0], chain, parting);
    this.drawSide(this.sides[1], this.other, parting);
    const place = PLACE + placeOf(this.report, chain) + (this.other ? `/${placeOf(this.report, this.other).split("/").slice(1).join("/")}` : "");
    history.replaceState(null, "", place);
    $("link").href = place;
    $("link").textContent = "Link";
  }

  drawSide(side, chain, parting) {
    side.root.hidden = !chain;
    if (!chain) { side.map.show(null); return; }
    const setting = this.report.settings[chain.setting];
    side.root.querySelector(".side-name").textContent = `${setting.name}, sample ${chain.sample}: ${WORDS[chain.verdict]}`;
    const span = answerSpan(chain.text, chain.answer), text = side.root.querySelector(".chain");
    if (parting === null) text.replaceChildren(...marked(chain.text, span, words()));
    else {
      const same = make("span", "same", chain.text.slice(0, parting)), here = make("span", "here", "⟂ here they part ");
      const rest = span && span[0] >= parting ? span.map((at) => at - parting) : null;
      text.replaceChildren(same, here, ...marked(chain.text.slice(parting), rest, words()));
      text.scrollTop = Math.max(0, here.offsetTop - text.offsetTop - 60);
    }
    side.map.show(chain.map, setting.colour, parting === null ? null : stepAt(chain.map, parting));
  }

  drawBeside(problem) {
    const options = problem.chains.map((c, index) => new Option(`${this.report.settings[c.setting].name}, sample ${c.sample}`, index));
    const shown = options.filter((_, index) => problem.chains[index] !== this.chain);
    $("beside").replaceChildren(new Option("nothing", ""), ...shown);
    $("beside").value = this.other ? problem.chains.indexOf(this.other) : "";
    $("beside").closest("label").hidden = problem.chains.length < 2;
  }

  drawPicks(problem) {
    const picks = this.report.settings.map((setting, index) => {
      const chains = problem.chains.filter((c) => c.setting === index);
      if (!chains.length) return null;
      const group = make("span", "pick");
      const swatch = make("span", "swatch");
      swatch.style.background = `var(--c${setting.colour.slice(1)})`;
      group.append(swatch, setting.name);
      for (const chain of chains) {
        const button = dot(chain, this.report);
        button.setAttribute("aria-pressed", chain === this.chain);
        button.addEventListener("click", () => this.open(chain, this.other));
        group.append(button);
      }
      return group;
    });
    $("picks").replaceChildren(...picks.filter(Boolean));
  }

  drawFacts(chain, problem) {
    const facts = [
      ["setting", `${this.report.settings[chain.setting].name}, sample ${chain.sample}`],
      ["grade", WORDS[chain.verdict], chain.verdict],
      ["answer", chain.answer ?? "none"],
      ["reference", problem.ref ?? "none"],
      ["length", `${chain.tokens.toLocaleString("en")} tokens${chain.finish === "length" ? ", cut off" : ""}`],
      ["KV read", chain.share === null ? "–" : `${(100 * chain.share).toFixed(1)} %`],
      ["decoding", `${chain.seconds.toLocaleString("en")} s`],
      ...Object.entries(problem.in),
    ];
    if (chain.error) facts.push(["error", chain.error, "error"]);
    $("facts").replaceChildren(...facts.map(([name, value, kind]) => {
      const fact = make("div");
      fact.append(make("dt", "", name), make("dd", kind || "", value));
      return fact;
    }));
  }
}
