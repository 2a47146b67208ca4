// Shortcuts, the slider's words, and a draft that outlives a reload. The page works without this file.
"use strict";
(() => {
  const form = document.getElementById("rating");
  if (!form) {  // the page of the name: another rater must not meet this one's draft
    try { sessionStorage.removeItem("draft"); } catch (e) { /* no storage */ }
    return;
  }

  const words = {
    "-2": "A is much better", "-1": "A is better", "0": "equal", "1": "B is better", "2": "B is much better",
  };
  const slider = document.getElementById("slider");
  const sayPreference = () => {
    const text = words[slider.value];
    document.getElementById("slider-text").textContent = text;
    slider.setAttribute("aria-valuetext", text);
  };
  const given = ["radio", "range", "textarea"];
  const keepDraft = () => {
    const chosen = [...form.elements].filter((e) => given.includes(e.type) && (e.type !== "radio" || e.checked));
    const draft = { shown: form.elements.shown.value, values: chosen.map((e) => [e.name, e.value]) };
    try { sessionStorage.setItem("draft", JSON.stringify(draft)); } catch (e) { /* no storage */ }
  };
  try {
    const draft = JSON.parse(sessionStorage.getItem("draft"));
    if (draft && draft.shown === form.elements.shown.value) {
      draft.values.forEach(([name, value]) => { form.elements[name].value = value; });
    } else {
      sessionStorage.removeItem("draft");
    }
  } catch (e) { /* no storage */ }
  form.addEventListener("input", keepDraft);
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
  const save = form.querySelector("button.primary");
  // What has the focus, else the first scale that is empty; a page that is full is changed only there.
  const choose = (number) => {
    const active = document.activeElement;
    if (slider && active === slider) {
      slider.value = number - 3;
      sayPreference();
      keepDraft();
      save.focus();
      return;
    }
    const empty = scales.find((s) => !s.querySelector(":checked"));
    const scale = active.closest("fieldset.scale") || empty || (active === document.body ? scales[0] : null);
    if (!scale) return;
    scale.querySelectorAll("input[type=radio]")[number - 1].checked = true;
    keepDraft();
    const next = scales[scales.indexOf(scale) + 1];
    const target = next ? next.querySelector(":checked") || next.querySelector("input") : slider;
    (target || save).focus();
  };
  const press = (button) => {
    if (button) button.click();
  };

  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.altKey) return;
    if (event.ctrlKey || event.metaKey) {
      if (event.key === "Enter" && !event.repeat) { event.preventDefault(); press(save); }
      return;
    }
    if (shortcuts && !shortcuts.checked) return;
    if (event.target.closest("textarea, input:not([type=radio]):not([type=range]):not([type=checkbox])")) return;
    const key = (event.key || "").toLowerCase();  // capitals: Caps Lock is on; none: the browser filled a field
    if (/^[1-5]$/.test(key)) { event.preventDefault(); if (!event.repeat) choose(Number(key)); return; }
    if (slider && (key === "[" || key === "]")) {
      event.preventDefault();
      slider.value = Number(slider.value) + (key === "]" ? 1 : -1);
      sayPreference();
      keepDraft();
      return;
    }
    // A key that is held down must not run through page after page.
    const button = form.querySelector(`button[data-key="${CSS.escape(key)}"]`);
    if (button) { event.preventDefault(); if (!event.repeat) press(button); }
  });

  // A second click on the way to the server must not look like a broken page.
  form.addEventListener("submit", () => {
    setTimeout(() => form.querySelectorAll("button").forEach((b) => { b.disabled = true; }), 0);
  });
  window.addEventListener("pageshow", () => form.querySelectorAll("button").forEach((b) => { b.disabled = false; }));
})();
