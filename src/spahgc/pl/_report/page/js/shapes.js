/*
 * What a spot covers: a circle, the square of a bin or tile, or the outline of a cell.
 */

/** Corners of each spot's outline as places of the map, or nothing where spots are circles. */
function outlineOf(spot) {
  const { shape } = content;
  if (shape.kind === "square") return squareCorners(spot, shape.angle);
  if (shape.kind !== "outline" || arrays.starts[spot + 1] - arrays.starts[spot] < 3) return null;
  const corners = [];
  for (let i = arrays.starts[spot]; i < arrays.starts[spot + 1]; i += 1) {
    corners.push([-arrays.vertices[2 * i + 1], arrays.vertices[2 * i]]);
  }
  return corners;
}

function squareCorners(spot, angle) {
  const [lat, lng] = placeOf(spot);
  const [cos, sin] = [Math.cos(angle) * content.diameter / 2, Math.sin(angle) * content.diameter / 2];
  return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => [lat - (x * sin + y * cos), lng + (x * cos - y * sin)]);
}

/** Add a spot to a map in its true shape. */
function addSpot(map, spot, style) {
  const corners = outlineOf(spot);
  // L.circle, which has its radius in units of the map, rounds it to whole pixels, up for one spot and down for the next.
  if (corners === null) return L.circleMarker(placeOf(spot), { ...style, radius: spotRadius(map) }).addTo(map);
  return L.polygon(corners, { ...style, smoothFactor: 0, noClip: true }).addTo(map);
}

/** Trace the shape of a spot on a canvas. */
function traceSpot(ink, map, spot, radius) {
  const corners = outlineOf(spot);
  ink.beginPath();
  if (corners === null) {
    const { x, y } = map.latLngToContainerPoint(placeOf(spot));
    ink.arc(x, y, radius, 0, 2 * Math.PI);
    return;
  }
  for (const corner of corners) {
    const { x, y } = map.latLngToContainerPoint(corner);
    ink.lineTo(x, y);
  }
  ink.closePath();
}
