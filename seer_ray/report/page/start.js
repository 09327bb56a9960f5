// Puts the page together.

setUpTheme();
load().then((report) => {
  let problems = null;
  const viewer = new Viewer(report, () => problems);
  problems = new Problems(report, (chain) => viewer.open(chain));
  document.documentElement.dataset.ready = "yes";
}).catch((error) => {
  $("count").textContent = `The data of this page cannot be read: ${error.message}`;
  throw error;
});
