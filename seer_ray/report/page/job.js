// Puts a page without chains together.

setUpTheme();
watchTables();
document.documentElement.dataset.ready = "yes";
