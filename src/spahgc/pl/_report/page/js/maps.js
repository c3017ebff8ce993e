/*
 * The maps: the slide with its spots, drawn by Leaflet, all at the same place and zoom.
 */

const SCALE_BAR_SHARE = 0.28;
const MAX_SPOT_PX = 300;
const LEAST_REACH_PX = 8;
const LEAST_SPOT_PX = 2.8;
const TOUCHING = 0.48;
const RING_ROOM_PX = 2.5;
const LEAST_RING_PX = 6;

const OPTIONS = {
  crs: L.CRS.Simple,
  attributionControl: false,
  zoomControl: false,
  zoomSnap: 0.25,
  zoomDelta: 0.5,
  // Without a limit of its own Leaflet never goes below 0, one pixel of the picture on one of the screen.
  minZoom: -20,
  wheelPxPerZoomLevel: 120,
  // One map would glide while the others jump.
  zoomAnimation: false,
  fadeAnimation: false,
  // The slide is kept in view, see keepInView.
  trackResize: false,
  // The arrow keys walk from spot to spot, see keys.js.
  keyboard: false,
};

/**
 * @typedef {Object} Panel
 * @property {L.Map} map
 * @property {L.Path[]} spots One a spot.
 * @property {L.CircleMarker[]} pointedRing Two rings, light on dark, so that one is seen on any colour.
 * @property {L.CircleMarker[]} chosenRing
 * @property {L.Marker} cross Where the pointer is on the other map.
 * @property {HTMLElement} bar Scale bar.
 */

/** @type {Panel[]} */
const panels = [];

/** The slide's picture, decoded; nothing where there is none. */
let picture = null;

/** Make all maps and let them follow each other. */
async function makeMaps() {
  for (const { map } of panels.splice(0)) map.remove();
  await readPicture();
  state.shown.forEach((_, index) => panels.push(makePanel(index)));
  for (const panel of panels) {
    panel.map.on("move", () => follow(panel));
    panel.map.on("zoomend", () => fitCircles(panel));
    panel.map.on("zoomend resize", () => fitScaleBar(panel));
    panel.map.on("moveend", () => {
      if (!sight.isFitting) sight.isWhole = false;
    });
  }
  watchSize();
  showWholeSlide();
  state.shown.forEach((_, index) => colourSpots(index));
  setOpacity();
  onChange(followState);
}

async function readPicture() {
  picture = null;
  if (content.picture === null) return;
  picture = new Image();
  picture.src = URL.createObjectURL(new Blob([await readBlock("picture")], { type: "image/jpeg" }));
  await picture.decode();
}

function makePanel(index) {
  const map = L.map(byId(`map-${index}`), OPTIONS);
  // Tiles lie over the picture, in a pane of Leaflet (200) that is above it.
  for (const [name, order] of [["picture", 150], ["spots", 410], ["marks", 450]]) map.createPane(name).style.zIndex = order;
  map.getPane("marks").style.pointerEvents = "none";
  map.fitBounds(boundsOf(content.view));
  map.setMinZoom(map.getZoom() - 1);
  map.setMaxZoom(Math.max(Math.log2(MAX_SPOT_PX / content.diameter), map.getZoom() + 1));
  if (picture !== null) L.imageOverlay(picture.src, boundsOf(content.picture), { pane: "picture", className: "slide-picture" }).addTo(map);
  addTiles(map);
  const panel = {
    map,
    spots: addSpots(map),
    pointedRing: addRing(map, 1.5),
    chosenRing: addRing(map, 2.5),
    cross: L.marker([0, 0], { icon: L.divIcon({ className: "cross", iconSize: [17, 17] }), interactive: false, keyboard: false }),
    bar: content.microns === null ? null : addScaleBar(map),
  };
  listenToPointer(panel);
  if (index === 0) addZoomButtons(map);
  return panel;
}

function boundsOf({ left, top, right, bottom }) {
  return [[-bottom, left], [-top, right]];
}

function addSpots(map) {
  const renderer = L.canvas({ pane: "spots", padding: 0.3 });
  const style = { renderer, stroke: false, fillOpacity: 1, interactive: false };
  return Array.from({ length: content.nSpots }, (_, spot) => addSpot(map, spot, style));
}

function addRing(map, weight) {
  const style = { renderer: L.svg({ pane: "marks" }), fill: false, interactive: false };
  return [["#ffffff", weight + 2], ["#111111", weight]].map(([color, width]) =>
    L.circleMarker([0, 0], { ...style, color, weight: width }),
  );
}

function addScaleBar(map) {
  const bar = make("div", { class: "scale-bar" });
  const control = L.control({ position: "bottomleft" });
  control.onAdd = () => bar;
  control.addTo(map);
  return bar;
}

function addZoomButtons(map) {
  const control = L.control({ position: "topleft" });
  control.onAdd = () => {
    const buttons = [["+", "Zoom in", () => map.zoomIn()], [MINUS, "Zoom out", () => map.zoomOut()],
      ["\u2922", "Show the whole slide", showWholeSlide]];
    const box = make("div", { class: "zoom-buttons" });
    for (const [text, title, onclick] of buttons) {
      box.append(make("button", { type: "button", title, "aria-label": title, onclick }, text));
    }
    L.DomEvent.disableClickPropagation(box);
    return box;
  };
  control.addTo(map);
}

/** Whether the whole slide is in sight, and whether the page itself is moving the maps. */
const sight = { isWhole: true, isFitting: false, watcher: null };

/** Where the slide as a whole is seen. */
function showWholeSlide() {
  sight.isFitting = true;
  for (const { map } of panels) {
    map.invalidateSize({ pan: false });
    // A smaller map needs a smaller zoom than the one that was the least until now.
    map.setMinZoom(OPTIONS.minZoom);
    map.fitBounds(boundsOf(content.view), { animate: false });
    map.setMinZoom(map.getZoom() - 1);
  }
  panels.forEach(fitScaleBar);
  sight.isFitting = false;
  sight.isWhole = true;
}

/** Keep the slide in view when the window, and with it the maps, change their size. */
function watchSize() {
  sight.watcher?.disconnect();
  sight.watcher = new ResizeObserver(keepInView);
  for (const { map } of panels) sight.watcher.observe(map.getContainer());
}

/** The whole slide stays whole; a part of it stays in the middle. */
function keepInView() {
  if (panels.some(({ map }) => map.getContainer().clientWidth === 0)) return;
  if (sight.isWhole) {
    showWholeSlide();
    return;
  }
  [sight.isFitting, following] = [true, true];
  for (const { map } of panels) map.invalidateSize({ animate: false });
  [sight.isFitting, following] = [false, false];
  follow(panels[0]);
  panels.forEach(fitScaleBar);
}

let following = false;

function follow(moved) {
  if (following) return;
  following = true;
  for (const { map } of panels.filter((panel) => panel !== moved)) {
    map.setView(moved.map.getCenter(), moved.map.getZoom(), { animate: false });
  }
  following = false;
}

function listenToPointer(panel) {
  const { map } = panel;
  map.on("mousemove", ({ latlng }) => {
    update({ pointed: spotAt(map, latlng) });
    for (const other of panels) {
      if (other === panel) other.cross.remove();
      else other.cross.setLatLng(latlng).addTo(other.map);
    }
  });
  map.on("mouseout", () => {
    update({ pointed: -1 });
    for (const other of panels) other.cross.remove();
  });
  map.on("click", ({ latlng }) => {
    const spot = drawing.isDone ? -1 : spotAt(map, latlng);
    if (spot >= 0) update({ spot, pointed: spot });
  });
}

function spotAt(map, { lat, lng }) {
  const reach = Math.max(content.diameter, LEAST_REACH_PX / map.getZoomScale(map.getZoom(), 0));
  return spotNear(lng, -lat, reach);
}

function followState(changed) {
  if (RECOLOURING.some((name) => changed.has(name))) panels.forEach((_, index) => colourSpots(index));
  if (changed.has("opacity")) setOpacity();
  if (changed.has("pointed")) panels.forEach((panel) => placeRing(panel, panel.pointedRing, state.pointed));
  if (changed.has("spot")) panels.forEach((panel) => placeRing(panel, panel.chosenRing, state.spot));
}

function colourSpots(index) {
  const layer = state.shown[index];
  const colours = spotColours(layer, index);
  const ring = { stroke: true, color: UNKNOWN.colour, weight: UNKNOWN.width };
  panels[index].spots.forEach((circle, spot) => {
    const fill = colours[spot] === null ? { fill: false } : { fill: true, fillColor: colours[spot] };
    circle.setStyle({ ...fill, ...(isRinged(layer, spot) ? ring : { stroke: false }) });
  });
}

function setOpacity() {
  for (const { map } of panels) map.getPane("spots").style.opacity = state.opacity;
}

function placeRing(panel, ring, spot) {
  for (const circle of ring) {
    if (spot < 0) circle.remove();
    else circle.setLatLng(placeOf(spot)).setRadius(ringRadius(panel.map)).addTo(panel.map);
  }
}

/** Spots grow and shrink with the tissue. */
function fitCircles({ map, spots, pointedRing, chosenRing }) {
  for (const spot of spots) spot.setRadius?.(spotRadius(map));
  for (const circle of [...pointedRing, ...chosenRing]) circle.setRadius(ringRadius(map));
}

/** Radius of a spot in pixels of the screen: true, but not too small to be seen as long as neighbours do not touch. */
function spotRadius(map) {
  const scale = map.getZoomScale(map.getZoom(), 0);
  return Math.max((content.diameter / 2) * scale, Math.min(LEAST_SPOT_PX, TOUCHING * content.pitch * scale));
}

function ringRadius(map) {
  return Math.max(spotRadius(map) + RING_ROOM_PX, LEAST_RING_PX);
}

/** Length and text of the scale bar at the zoom of a map. */
function scaleBarOf(map) {
  const micronsPerPixel = content.microns / map.getZoomScale(map.getZoom(), 0);
  const length = roundLength(SCALE_BAR_SHARE * map.getSize().x * micronsPerPixel);
  return { width: length / micronsPerPixel, text: lengthText(length) };
}

function fitScaleBar({ map, bar }) {
  if (bar === null) return;
  const { width, text } = scaleBarOf(map);
  bar.style.width = `${width}px`;
  bar.textContent = text;
}

/** Bring a spot into view where it is not. */
function reveal(spot) {
  panels[0].map.panInside(placeOf(spot), { padding: [40, 40], animate: false });
}
