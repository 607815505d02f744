// Before anything is painted: the theme that was chosen the last time.
try {
  const theme = localStorage.getItem("lamina-batch theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // A browser that keeps nothing follows the system.
}
