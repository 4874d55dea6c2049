// Buttons with data-ask are confirmed in a dialog first: native, so that it traps the focus and
// closes by Escape.
export function startAsking() {
  const dialog = document.getElementById("ask");
  if (!dialog) return;
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-ask]");
    if (!button || button.asked) return;
    event.preventDefault();
    event.stopPropagation();
    document.getElementById("ask-text").textContent = button.dataset.ask;
    document.getElementById("ask-more").textContent = button.dataset.more || "";
    document.getElementById("ask-yes").textContent = button.textContent.trim();
    dialog.returnValue = "no";
    dialog.onclose = () => {
      if (dialog.returnValue !== "yes" || !button.isConnected) return;
      button.asked = true;
      button.click();
      button.asked = false;
    };
    dialog.showModal();
  }, true);
}
