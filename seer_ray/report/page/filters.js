// Filters by columns that came along from the dataset, and how many are right among what they leave.

// Column -> its values, in order.
function inputColumns(report) {
  const columns = new Map();
  for (const problem of report.problems)
    for (const [name, value] of Object.entries(problem.in)) columns.set(name, (columns.get(name) ?? new Set()).add(value));
  return new Map([...columns].map(([name, values]) => [name, [...values].sort(new Intl.Collator("en", { numeric: true }).compare)]));
}

function drawInputs(report) {
  for (const [name, values] of inputColumns(report)) {
    const label = make("label", "", name), chosen = document.createElement("select");
    chosen.dataset.input = name;
    chosen.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
    label.append(chosen);
    $("inputs").append(label);
  }
}

const chosenInputs = () => [...document.querySelectorAll("[data-input]")].filter((s) => s.value !== "").map((s) => [s.dataset.input, s.value]);

const hasInputs = (problem, chosen) => chosen.every(([name, value]) => problem.in[name] === value);

// "Right among these: dense 88 % of 24, seer 96 81 % of 24"
function sharesOf(problems, columns) {
  const parts = columns.map(([setting, index]) => {
    const graded = problems.flatMap((p) => p.chains.filter((c) => c.setting === index && c.verdict !== "ungraded"));
    const right = graded.filter((c) => c.verdict === "right").length;
    return graded.length ? `${setting.name} ${Math.round((100 * right) / graded.length)} % of ${graded.length.toLocaleString("en")}` : null;
  });
  const known = parts.filter(Boolean);
  return known.length ? `Right among these: ${known.join(" · ")}` : "";
}
