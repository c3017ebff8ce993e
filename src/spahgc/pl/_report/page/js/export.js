/*
 * Files for the reader: the maps as they are seen, as a PNG; the gene table as CSV.
 */

const SHEET = { scale: 2, margin: 24, gap: 24, head: 78, title: 30, legend: 64, foot: 40 };
const INK = "#1c2126";
const PALE_INK = "#5b646d";
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
const CAUTION = "A prediction is no measurement and no basis for a diagnosis.";

/** Save the maps as they are seen now: picture, spots, colour bars and scale bar, on white. */
function savePicture() {
  // toBlob waits until the browser is idle, which may take seconds; the reader waits for this file now.
  const address = drawSheet().toDataURL("image/png");
  const bytes = fromBase64(address.slice(address.indexOf(",") + 1));
  download(new Blob([bytes], { type: "image/png" }), `${content.slide}_${shownGenes().join("_")}.png`);
}

function shownGenes() {
  return (state.second < 0 ? [state.gene] : [state.gene, state.second]).map((gene) => content.genes[gene]);
}

function drawSheet() {
  const sizes = panels.map(({ map }) => map.getSize());
  const gaps = 2 * SHEET.margin + SHEET.gap * (panels.length - 1);
  const width = sizes.reduce((sum, { x }) => sum + x, gaps);
  const tallest = Math.max(...sizes.map(({ y }) => y));
  const height = SHEET.head + SHEET.title + tallest + SHEET.legend + SHEET.foot;
  const canvas = make("canvas", { width: width * SHEET.scale, height: height * SHEET.scale });
  const ink = canvas.getContext("2d");
  ink.scale(SHEET.scale, SHEET.scale);
  ink.fillStyle = "#ffffff";
  ink.fillRect(0, 0, width, height);
  write(ink, `${content.title}: ${shownGenes().join(" and ")}`, SHEET.margin, 36, { size: 18, weight: 600, width: width - 2 * SHEET.margin });
  trustLines().forEach((line, i) => write(ink, line, SHEET.margin, 56 + 17 * i, { colour: PALE_INK, width: width - 2 * SHEET.margin }));
  let left = SHEET.margin;
  panels.forEach((panel, index) => {
    write(ink, titleOf(index), left, SHEET.head + 18, { size: 14, weight: 600, width: sizes[index].x });
    ink.save();
    ink.translate(left, SHEET.head + SHEET.title);
    drawMap(ink, panel, index);
    ink.restore();
    drawSheetLegend(ink, index, left, SHEET.head + SHEET.title + tallest + 12, sizes[index].x);
    left += sizes[index].x + SHEET.gap;
  });
  const rings = unknown.size > 0 && state.shown.some((layer) => RINGED.has(layer)) ? ` Rings: ${unknownText()}.` : "";
  write(ink, `${CAUTION}${rings} ${content.origin}`, SHEET.margin, height - 16, { size: 11, colour: PALE_INK, width: width - 2 * SHEET.margin });
  return canvas;
}

function write(ink, text, x, y, { size = 13, weight = 400, colour = INK, align = "left", width } = {}) {
  ink.font = `${weight} ${size}px ${FONT}`;
  ink.fillStyle = colour;
  ink.textAlign = align;
  ink.fillText(text, x, y, width);
}

function drawMap(ink, { map }, index) {
  const layer = state.shown[index];
  const { x: width, y: height } = map.getSize();
  ink.beginPath();
  ink.rect(0, 0, width, height);
  ink.clip();
  if (picture !== null) {
    const { left, top, right, bottom } = content.picture;
    const start = map.latLngToContainerPoint([-top, left]);
    const end = map.latLngToContainerPoint([-bottom, right]);
    ink.drawImage(picture, start.x, start.y, end.x - start.x, end.y - start.y);
  }
  const radius = spotRadius(map);
  const colours = spotColours(layer, index);
  ink.globalAlpha = state.opacity;
  for (let spot = 0; spot < content.nSpots; spot += 1) {
    const ringed = isRinged(layer, spot);
    if (colours[spot] === null && !ringed) continue;
    traceSpot(ink, map, spot, radius);
    if (ringed) {
      [ink.strokeStyle, ink.lineWidth] = [UNKNOWN.colour, UNKNOWN.width];
      ink.stroke();
      continue;
    }
    ink.fillStyle = colours[spot];
    ink.fill();
  }
  ink.globalAlpha = 1;
  drawSheetAnnotations(ink, map);
  if (state.region !== null) drawSheetRegion(ink, map);
  if (content.microns !== null) drawSheetScaleBar(ink, map, height);
}

function drawSheetRegion(ink, map) {
  [ink.strokeStyle, ink.lineWidth] = [INK, 2];
  ink.setLineDash([6, 5]);
  for (const ring of state.region.rings) traceRing(ink, map, ring);
  ink.setLineDash([]);
}

function drawSheetScaleBar(ink, map, height) {
  const { width, text } = scaleBarOf(map);
  ink.fillStyle = "rgba(255, 255, 255, 0.85)";
  ink.fillRect(8, height - 36, width + 16, 28);
  ink.fillStyle = INK;
  ink.fillRect(16, height - 16, width, 3);
  write(ink, text, 16 + width / 2, height - 21, { size: 12, align: "center" });
}

function drawSheetLegend(ink, index, left, top, width) {
  const layer = state.shown[index];
  if (isBlended(layer)) {
    drawBlendSquare(ink, left, top, SHEET.legend - 12);
    blendTexts(layer).forEach((text, i) => write(ink, text, left + SHEET.legend, top + 16 + 18 * i, { size: 12, width: width - SHEET.legend }));
    return;
  }
  const view = viewOf(layer, geneOf(index));
  if (view.kind === "classes") drawSheetClasses(ink, view, left, top, width);
  if (view.kind !== "scale") return;
  const bar = ink.createLinearGradient(left, 0, left + width, 0);
  view.colours.forEach((colour, i) => bar.addColorStop(i / (view.colours.length - 1), colour));
  ink.fillStyle = bar;
  ink.fillRect(left, top, width, 10);
  const [low, high] = scaleEnds(view);
  write(ink, low, left, top + 26, { size: 12 });
  write(ink, high, left + width, top + 26, { size: 12, align: "right" });
  write(ink, view.label, left + width / 2, top + 42, { size: 12, colour: PALE_INK, align: "center", width });
}

function drawSheetClasses(ink, view, left, top, width) {
  let [x, y] = [left, top];
  view.names.forEach((name, code) => {
    ink.font = `400 12px ${FONT}`;
    const length = 18 + ink.measureText(name).width + 12;
    if (x + length > left + width && x > left) [x, y] = [left, y + 18];
    ink.fillStyle = view.colours[code];
    ink.fillRect(x, y, 12, 12);
    write(ink, name, x + 17, y + 11, { size: 12, width: width - 17 });
    x += length;
  });
}

/** Save the gene table, in the order in which it is sorted. */
function saveTable() {
  const { trust, achieved } = content;
  const head = ["gene"];
  if (trust !== null) head.push("held_out_pcc", "held_out_pcc_low", "held_out_pcc_high");
  if (achieved !== null) head.push("achieved_pcc");
  const rows = shownOrder().map((gene) => {
    const row = [cell(content.genes[gene])];
    if (trust !== null) row.push(...[trust.pcc, trust.low, trust.high].map((column) => numberCell(column[gene])));
    if (achieved !== null) row.push(numberCell(achieved[gene]));
    return row;
  });
  saveCsv([head, ...rows], `${content.slide}_genes.csv`);
}

/** Hand a table over whose cells are texts of CSV already. */
function saveCsv(rows, name) {
  const text = rows.map((row) => `${row.join(",")}\r\n`).join("");
  download(new Blob([text], { type: "text/csv;charset=utf-8" }), name);
}

function numberCell(value) {
  return isNumber(value) ? String(value) : "";
}

/** A text of the table; one that a spreadsheet would take for a formula is kept from it. */
function cell(text) {
  const tame = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(tame) ? `"${tame.replaceAll('"', '""')}"` : tame;
}
