/*
 * The page without a mouse: on a map the arrow keys walk from spot to spot and Enter chooses one.
 */

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Listen to the keys on every map, and to "/" everywhere. */
function listenToKeys() {
  panels.forEach(({ map }, index) => {
    listen(map.getContainer(), "keydown", (event) => onMapKey(event, map, index));
  });
  listen(document, "keydown", (event) => {
    const writing = event.target.closest?.("input, select, textarea");
    if (event.key !== "/" || writing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    byId("search").focus();
  });
}

function onMapKey(event, map, index) {
  if (event.target !== map.getContainer() || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in ARROWS) walk(map, index, ARROWS[event.key]);
  else if ((event.key === "Enter" || event.key === " ") && state.pointed >= 0) update({ spot: state.pointed });
  else if (event.key === "Escape") update({ spot: -1, pointed: -1, drawing: "move" });
  else if (event.key === "r" || event.key === "R") markCorner();
  else if (event.key === "+" || event.key === "=") map.zoomIn();
  else if (event.key === "-") map.zoomOut();
  else if (event.key === "0") showWholeSlide();
  else return;
  event.preventDefault();
}

function walk(map, index, direction) {
  const { lat, lng } = map.getCenter();
  const from = state.pointed >= 0 ? state.pointed : state.spot;
  const spot = from >= 0 ? nextSpot(from, direction) : nearestSpot(lng, -lat);
  reveal(spot);
  update({ pointed: spot });
  announce(spotText(spot, state.shown[index]));
}
