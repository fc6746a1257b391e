// Light or dark: the system's choice until the switch is used, then that.

const key = "photon-theme";

export function startTheme(button: HTMLButtonElement): void {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => localStorage.getItem(key);
  const show = () => {
    const theme = chosen();
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
    const dark = theme === "dark" || (theme !== "light" && system.matches);
    button.setAttribute("aria-pressed", String(dark));
    document.dispatchEvent(new Event("themechange"));
  };
  button.addEventListener("click", () => {
    localStorage.setItem(key, button.getAttribute("aria-pressed") === "true" ? "light" : "dark");
    show();
  });
  system.addEventListener("change", show);
  show();
}

/** A colour of the style sheet as a canvas can use it. */
export function cssColor(name: string): string {
  const probe = document.createElement("span");
  probe.hidden = true;
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}
