/*
 * The full-resolution image in tiles that lie in a folder beside the page: nuclei are sharp however near one looks.
 */

/** Lay the tiles over the picture, where the page has some. */
function addTiles(map) {
  const { tiles } = content;
  if (tiles === null) return;
  L.tileLayer(`${tiles.folder}/{z}/{x}_{y}.jpg`, {
    tileSize: tiles.side,
    minZoom: tiles.least,
    minNativeZoom: tiles.least,
    maxNativeZoom: tiles.most,
    maxZoom: map.getMaxZoom(),
    bounds: boundsOf(tiles.bounds),
    noWrap: true,
    keepBuffer: 1,
    className: "slide-tile",
  }).addTo(map);
}
