// Says of a table that it goes on to the right, where it does.

function watchTables() {
  for (const frame of document.querySelectorAll(".wide")) {
    const hint = make("p", "scrolls", "The table goes on to the right: scroll it sideways →");
    frame.before(hint);
    const tell = () => { hint.hidden = frame.scrollWidth <= frame.clientWidth + 1; };
    const watch = new ResizeObserver(tell);
    watch.observe(frame);
    watch.observe(frame.firstElementChild);
    tell();
  }
}
