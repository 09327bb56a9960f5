// One chain: prompt, text with its answer marked, facts, and the other chains of the problem.

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

class Viewer {
  constructor(report, problems) {
    this.report = report;
    this.map = new AttentionMap();
    this.problems = problems;
    this.chain = null;
    $("close").addEventListener("click", () => $("viewer").close());
    $("viewer").addEventListener("click", (event) => { if (event.target === $("viewer")) $("viewer").close(); });
    for (const button of document.querySelectorAll("[data-go]")) button.addEventListener("click", () => this.go(+button.dataset.go));
    $("viewer").addEventListener("keydown", (event) => {
      if (event.target.closest("select, canvas") || event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === "ArrowLeft") this.go(-1);
      if (event.key === "ArrowRight") this.go(1);
    });
  }

  // The chain of the same setting and sample of the problem before or after, as the table stands.
  go(step) {
    const shown = this.problems().shown;
    const at = shown.findIndex((p) => p.index === this.chain.problem);
    const next = shown[at + step];
    if (!next) return;
    const same = next.chains.find((c) => c.setting === this.chain.setting && c.sample === this.chain.sample);
    const kin = next.chains.find((c) => c.setting === this.chain.setting);
    this.open(same || kin || next.chains[0]);
  }

  open(chain) {
    this.chain = chain;
    const problem = this.report.problems[chain.problem], setting = this.report.settings[chain.setting];
    $("viewer-title").textContent = problem.id;
    $("viewer-title").title = problem.id;
    this.drawPicks(problem);
    this.drawFacts(chain, problem, setting);
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    document.querySelector("#prompt pre").replaceChildren(...marked(chain.prompt, null, words));
    $("chain").replaceChildren(...marked(chain.text, answerSpan(chain.text, chain.answer), words));
    if (!$("viewer").open) $("viewer").showModal();
    $("viewer").scrollTop = 0;
    $("map").hidden = !chain.map;
    this.map.show(chain.map, setting.colour);
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
        button.addEventListener("click", () => this.open(chain));
        group.append(button);
      }
      return group;
    });
    $("picks").replaceChildren(...picks.filter(Boolean));
  }

  drawFacts(chain, problem, setting) {
    const facts = [
      ["setting", `${setting.name}, sample ${chain.sample}`],
      ["grade", WORDS[chain.verdict], chain.verdict],
      ["answer", chain.answer ?? "none"],
      ["reference", problem.ref ?? "none"],
      ["length", `${chain.tokens.toLocaleString("en")} tokens${chain.finish === "length" ? ", cut off" : ""}`],
      ["KV read", chain.share === null ? "–" : `${(100 * chain.share).toFixed(1)} %`],
      ["decoding", `${chain.seconds.toLocaleString("en")} s`],
    ];
    if (chain.error) facts.push(["error", chain.error, "error"]);
    $("facts").replaceChildren(...facts.map(([name, value, kind]) => {
      const fact = make("div");
      fact.append(make("dt", "", name), make("dd", kind || "", value));
      return fact;
    }));
  }
}
