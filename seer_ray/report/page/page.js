"use strict";
// What all parts of the page share. No text of a run is ever parsed as HTML: `textContent` alone.

const $ = (id) => document.getElementById(id);

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = text;
  return element;
}

async function inflate(base64) {
  const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const SIGNS = { right: "✓", wrong: "✗", none: "∅", error: "!", ungraded: "?" };
const WORDS = { right: "right", wrong: "wrong", none: "no answer", error: "error", ungraded: "not graded" };

// The page's data as objects: every chain with its setting and problem.
async function load() {
  const data = JSON.parse(new TextDecoder().decode(await inflate($("data").textContent)));
  const problems = data.problems.map((problem, index) => ({ ...problem, index, chains: [] }));
  data.settings.forEach((setting, index) => {
    const c = setting.chains;
    c.p.forEach((problem, row) => problems[problem].chains.push({
      setting: index, problem, sample: c.s[row], prompt: data.prompts[c.q[row]], text: c.t[row], answer: c.a[row],
      verdict: c.k[row], finish: c.f[row], error: c.e[row], tokens: c.n[row], share: c.r[row], seconds: c.d[row], map: null,
    }));
  });
  for (const map of data.maps) {
    const chain = problems[map.problem].chains.find((c) => c.setting === map.setting && c.sample === map.sample);
    if (chain) chain.map = map;
  }
  for (const problem of problems) {
    problem.prompt = problem.chains.length ? problem.chains[0].prompt : "";
    problem.haystack = null; // made when somebody searches
  }
  return { settings: data.settings, problems };
}

function setUpTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("seer-ray-theme"); } catch { /* a page from a file may have no storage */ }
  const apply = () => {
    document.documentElement.dataset.theme = chosen || (system.matches ? "dark" : "light");
    document.dispatchEvent(new Event("themechange"));
  };
  system.addEventListener("change", apply);
  $("theme").addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("seer-ray-theme", chosen); } catch { /* as above */ }
    apply();
  });
  apply();
}
