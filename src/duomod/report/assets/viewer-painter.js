/* Paints label maps into a picture of the same size: fills, outlines, and errors that differ in pattern too. */
(() => {
  "use strict";

  class Painter {
    constructor(layer, width, height) {
      this.pixels = layer.data;
      this.width = width;
      this.height = height;
    }

    put(pixel, colour, share) {
      const at = 4 * pixel;
      for (let channel = 0; channel < 3; channel += 1) {
        this.pixels[at + channel] = (1 - share) * this.pixels[at + channel] + share * colour[channel];
      }
    }

    /* Whether a pixel's label differs from that of a neighbour. */
    edge(labels, pixel) {
      const { width } = this;
      const label = labels[pixel];
      return label !== labels[pixel - 1] || label !== labels[pixel + 1] || label !== labels[pixel - width] || label !== labels[pixel + width];
    }

    filled(labels, colours, opacity) {
      for (let pixel = 0; pixel < labels.length; pixel += 1) {
        const label = labels[pixel];
        if (label) this.put(pixel, colours[label - 1], this.edge(labels, pixel) ? Math.min(1, opacity * 2) : opacity);
      }
    }

    outlined(labels, colour) {
      for (let pixel = 0; pixel < labels.length; pixel += 1) {
        if (labels[pixel] && this.edge(labels, pixel)) this.put(pixel, colour, 0.9);
      }
    }

    /* Missed: diagonal hatching. Too much: filled. Another organ: both. */
    errors(truth, predicted, missed, extra, opacity) {
      const lost = new Uint8Array(truth.length);
      for (let pixel = 0; pixel < truth.length; pixel += 1) lost[pixel] = truth[pixel] && truth[pixel] !== predicted[pixel] ? 1 : 0;
      for (let pixel = 0; pixel < truth.length; pixel += 1) {
        if (predicted[pixel] && truth[pixel] !== predicted[pixel]) this.put(pixel, extra, Math.min(1, opacity * 1.4));
        const [x, y] = [pixel % this.width, Math.floor(pixel / this.width)];
        if (lost[pixel] && ((x + y) % 7 < 3 || this.edge(lost, pixel))) this.put(pixel, missed, Math.min(1, opacity * 2));
      }
    }
  }

  function rgb(colour) {
    return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  }

  DuomodViewer.painting = { Painter, rgb };
})();
