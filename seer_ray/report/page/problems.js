// The table of problems: filters, order, rows.

const PAGE = 60;
const DOTS = 12; // of a cell; the viewer has the others

// Chains that a choice of setting leaves.
const within = (problem, setting) => setting === "" ? problem.chains : problem.chains.filter((c) => c.setting === +setting);

function haystack(problem, settings) {
  if (problem.haystack === null) {
    const parts = [problem.id, problem.ref ?? ""];
    for (const chain of problem.chains) parts.push(chain.prompt, chain.text, chain.answer ?? "", chain.error ?? "");
    problem.haystack = [...new Set(parts)].join("\n").toLowerCase();
  }
  return problem.haystack;
}

function disagreement(chains) {
  const graded = chains.filter((c) => c.verdict !== "ungraded");
  const right = graded.filter((c) => c.verdict === "right").length;
  return graded.length ? Math.min(right, graded.length - right) / graded.length : 0;
}

const rightShare = (chains) => {
  const graded = chains.filter((c) => c.verdict !== "ungraded");
  return graded.length ? graded.filter((c) => c.verdict === "right").length / graded.length : -1;
};

const longest = (chains) => chains.reduce((most, c) => Math.max(most, c.tokens), 0);

const OUTCOMES = {
  all: () => true,
  right: (chains) => chains.some((c) => c.verdict === "right"),
  wrong: (chains) => chains.some((c) => ["wrong", "none", "error"].includes(c.verdict)),
  disagree: (chains) => disagreement(chains) > 0,
  none: (chains) => chains.some((c) => c.verdict === "none"),
  length: (chains) => chains.some((c) => c.finish === "length"),
  error: (chains) => chains.some((c) => c.verdict === "error"),
  map: (chains) => chains.some((c) => c.map),
};

const ORDERS = {
  order: (a, b) => a.index - b.index,
  hard: (a, b, of) => rightShare(of(a)) - rightShare(of(b)),
  easy: (a, b, of) => rightShare(of(b)) - rightShare(of(a)),
  long: (a, b, of) => longest(of(b)) - longest(of(a)),
  split: (a, b, of) => disagreement(of(b)) - disagreement(of(a)),
};

// Problems that pass the filters, in order.
function select(report, { search, setting, outcome, sort, inputs }) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const of = (problem) => within(problem, setting);
  return report.problems
    .filter((p) => of(p).length && hasInputs(p, inputs) && OUTCOMES[outcome](of(p)) && words.every((word) => haystack(p).includes(word)))
    .sort((a, b) => ORDERS[sort](a, b, of) || a.index - b.index);
}

function dot(chain, report, label) {
  const button = make("button", `dot ${chain.verdict}${chain.map ? " mapped" : ""}`, SIGNS[chain.verdict]);
  button.type = "button";
  const said = `${report.settings[chain.setting].name}, sample ${chain.sample}: ${WORDS[chain.verdict]}`;
  button.title = chain.answer === null ? said : `${said} (${chain.answer.slice(0, 80)})`;
  button.setAttribute("aria-label", said);
  return button;
}

// How much all prompts begin alike: a system message, the head of a template.
function sharedStart(problems) {
  const prompts = problems.map((p) => p.prompt).filter(Boolean);
  if (prompts.length < 2) return 0;
  let shared = 0;
  while (shared < prompts[0].length && prompts.every((text) => text[shared] === prompts[0][shared])) shared++;
  return Math.max(0, prompts[0].lastIndexOf(" ", shared) + 1);
}

class Problems {
  // `open` takes a chain; `compare` a problem.
  constructor(report, open, compare) {
    this.report = report;
    this.open = open;
    this.compare = compare;
    this.shown = [];
    this.skip = sharedStart(report.problems);
    this.limit = PAGE;
    $("setting").append(new Option("all settings", ""), ...report.settings.map((s, i) => new Option(s.name, i)));
    if (report.settings.length === 1) $("setting").closest("label").hidden = true;
    drawInputs(report);
    $("filters").addEventListener("input", () => { this.limit = PAGE; this.draw(); });
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("more").addEventListener("click", () => { this.limit += 5 * PAGE; this.draw(); });
    this.draw();
  }

  choices() {
    return { search: $("search").value, setting: $("setting").value, outcome: $("outcome").value, sort: $("sort").value, inputs: chosenInputs() };
  }

  draw() {
    const choices = this.choices();
    this.shown = select(this.report, choices);
    const columns = this.report.settings.map((s, i) => [s, i]).filter(([, i]) => choices.setting === "" || i === +choices.setting);
    const head = make("tr");
    for (const title of ["Problem", "Reference", ...columns.map(([s]) => s.name)]) head.append(make("th", "", title));
    document.querySelector("#table thead").replaceChildren(head);
    document.querySelector("#table tbody").replaceChildren(...this.shown.slice(0, this.limit).map((p) => this.row(p, columns)));
    $("more").hidden = this.shown.length <= this.limit;
    const all = this.report.problems.length;
    $("shares").textContent = sharesOf(this.shown, columns);
    $("count").textContent = this.shown.length === all ? `${all} problems` : `${this.shown.length} of ${all} problems`;
  }

  row(problem, columns) {
    const row = make("tr");
    const name = make("td", "problem");
    const id = make("button", "id", problem.id);
    id.type = "button";
    id.title = "Compare its chains";
    id.addEventListener("click", () => this.compare(problem));
    name.append(id, make("small", "", (this.skip ? "… " : "") + problem.prompt.slice(this.skip, this.skip + 300)));
    row.append(name, make("td", "answer", problem.ref ?? "–"));
    for (const [, index] of columns) {
      const cell = make("td"), dots = make("div", "dots");
      const chains = within(problem, index);
      for (const chain of chains.slice(0, DOTS)) {
        const button = dot(chain, this.report);
        button.addEventListener("click", () => this.open(chain));
        dots.append(button);
      }
      if (chains.length > DOTS) {
        const right = chains.filter((c) => c.verdict === "right").length;
        dots.append(make("small", "", `+${chains.length - DOTS}, ${right} of ${chains.length} right`));
      }
      cell.append(dots);
      row.append(cell);
    }
    return row;
  }
}
