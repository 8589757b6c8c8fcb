/* Cases, as their scripts hand them over, and how they are unpacked. This script comes first: the others of the viewer add
   themselves to the object that it makes. Volumes are stored x fastest, then y, then z; x, y, z grow to the patient's
   right, front and top (RAS). */
const DuomodViewer = (() => {
  "use strict";

  const cases = new Map();

  async function unpacked(text, Type) {
    const compressed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    if (Type.BYTES_PER_ELEMENT === 1) return bytes;
    // Two-byte values: all low bytes, then all high bytes.
    const count = bytes.length / 2;
    const values = new Type(count);
    for (let i = 0; i < count; i += 1) values[i] = bytes[i] | (bytes[count + i] << 8);
    return values;
  }

  async function decoded(id) {
    if (!cases.has(id)) throw new Error(`no case ${id} is loaded`);
    const data = cases.get(id);
    const voxels = await unpacked(data.image.data, Int16Array);
    const maps = await Promise.all(data.maps.map(async (map) => ({ ...map, voxels: await unpacked(map.data, Uint8Array) })));
    return { ...data, voxels, maps };
  }

  return {
    /* Called by a case's script. */
    add(id, data) {
      cases.set(id, data);
    },
    /* Ids of the cases that are loaded. */
    ids: () => [...cases.keys()],
    decoded,
    unpacked,
  };
})();
