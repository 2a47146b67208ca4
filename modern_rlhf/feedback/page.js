// Shortcuts and the slider's words. The page works without this file.
"use strict";
(() => {
  const form = document.getElementById("rating");
  if (!form) return;

  const words = {
    "-2": "A is much better", "-1": "A is better", "0": "equal", "1": "B is better", "2": "B is much better",
  };
  const slider = document.getElementById("slider");
  const sayPreference = () => {
    const text = words[slider.value];
    document.getElementById("slider-text").textContent = text;
    slider.setAttribute("aria-valuetext", text);
  };
  if (slider) {
    slider.addEventListener("input", sayPreference);
    sayPreference();
  }

  // Single-key shortcuts can be switched off, for people whose software sends letters of its own.
  const shortcuts = document.getElementById("shortcuts");
  if (shortcuts) {
    try { shortcuts.checked = localStorage.getItem("shortcuts") !== "off"; } catch (e) { /* no storage */ }
    shortcuts.addEventListener("change", () => {
      try { localStorage.setItem("shortcuts", shortcuts.checked ? "on" : "off"); } catch (e) { /* no storage */ }
    });
  }

  const scales = [...form.querySelectorAll("fieldset.scale")];
  const choose = (number) => {
    const focused = document.activeElement.closest("fieldset.scale");
    const scale = focused || scales.find((s) => !s.querySelector(":checked")) || scales[0];
    const radios = scale ? [...scale.querySelectorAll("input[type=radio]")] : [];
    if (!radios[number - 1]) return;
    radios[number - 1].checked = true;
    const next = scales[scales.indexOf(scale) + 1];
    const target = next ? next.querySelector(":checked") || next.querySelector("input") : slider;
    (target || form.querySelector("button.primary")).focus();
  };
  const press = (button) => {
    if (button) button.click();
  };

  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.altKey || event.metaKey) return;
    if (event.ctrlKey) {
      if (event.key === "Enter") { event.preventDefault(); press(form.querySelector("button.primary")); }
      return;
    }
    if (shortcuts && !shortcuts.checked) return;
    if (event.target.closest("textarea, input:not([type=radio]):not([type=range]):not([type=checkbox])")) return;
    if (event.key >= "1" && event.key <= "5") { event.preventDefault(); choose(Number(event.key)); return; }
    if (slider && (event.key === "[" || event.key === "]")) {
      event.preventDefault();
      slider.value = Number(slider.value) + (event.key === "]" ? 1 : -1);
      sayPreference();
      return;
    }
    const button = form.querySelector(`button[data-key="${CSS.escape(event.key)}"]`);
    if (button) { event.preventDefault(); press(button); }
  });

  // A second click on the way to the server must not look like a broken page.
  form.addEventListener("submit", () => {
    setTimeout(() => form.querySelectorAll("button").forEach((b) => { b.disabled = true; }), 0);
  });
  window.addEventListener("pageshow", () => form.querySelectorAll("button").forEach((b) => { b.disabled = false; }));
})();
