(() => {
  // What only screen readers are told is clipped away on purpose.
  const hidden = (element) => element !== null && (getComputedStyle(element).clipPath === "inset(50%)" || hidden(element.parentElement));
  const shown = (element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && getComputedStyle(element).visibility === "visible" && !hidden(element);
  };
  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  // The colours behind an element, down to the first one that lets nothing through.
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [red, green, blue, alpha = 1] = channels(getComputedStyle(at).backgroundColor);
      if (alpha === 1) return [red, green, blue];
    }
    return [255, 255, 255];
  };
  // Contrast as WCAG 2 defines it.
  const luminance = (colour) => {
    const [red, green, blue] = colour.map((channel) => {
      const share = channel / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, other) => {
    const [less, more] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (more + 0.05) / (less + 0.05);
  };
  const width = document.documentElement.clientWidth;
  const cutOff = [];
  const broken = [];
  const pale = [];
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const element = node.parentElement;
    if (!node.textContent.trim() || !shown(element)) continue;
    texts += 1;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    for (let at = element; at && at !== document.body; at = at.parentElement) {
      const style = getComputedStyle(at);
      const outer = at.getBoundingClientRect();
      const clips = style.overflowX !== "visible" && !["inline", "contents"].includes(style.display);
      if (clips && (box.right > outer.right + 1 || box.bottom > outer.bottom + 1)) cutOff.push(node.textContent.trim());
    }
    if (box.left < -1 || box.right > width + 1) cutOff.push(node.textContent.trim());
    for (const word of node.textContent.matchAll(/(?<=^|\s)[A-Za-z]{2,14}(?=$|\s)/g)) {
      const letters = document.createRange();
      letters.setStart(node, word.index);
      letters.setEnd(node, word.index + word[0].length);
      if (new Set([...letters.getClientRects()].map((line) => line.top)).size > 1) broken.push(word[0]);
    }
    const ratio = contrast(channels(getComputedStyle(element).color).slice(0, 3), ground(element));
    if (ratio < 4.5) pale.push(`${node.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  const fields = [...document.querySelectorAll("input:not([type=hidden])")];
  return {
    width: window.innerWidth,
    scrollWidth: document.documentElement.scrollWidth,
    texts,
    cutOff,
    broken,
    pale,
    withoutCaption: [...document.querySelectorAll("table")].filter((table) => !table.caption?.textContent.trim()).length,
    withoutLabel: fields.filter((field) => !field.labels.length).length,
    dark: luminance(ground(document.body)) < 0.2,
  };
})()
