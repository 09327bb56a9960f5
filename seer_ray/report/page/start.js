// Puts the page together.

setUpTheme();
watchTables();
load().then((report) => {
  let problems = null;
  const viewer = new Viewer(report, () => problems);
  problems = new Problems(report, (chain) => viewer.open(chain), (problem) => viewer.compare(problem));
  viewer.follow();
  document.documentElement.dataset.ready = "yes";
}).catch((error) => {
  $("count").textContent = `The data of this page cannot be read: ${error.message}`;
  throw error;
});
