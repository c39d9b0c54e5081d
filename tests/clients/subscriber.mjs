// A subscriber in Node, from the wire contract alone: npm's zeromq and node:zlib, no library of ours.
//
//   npm install && node subscriber.mjs tcp://127.0.0.1:5555 mask/person/ 10
//
// prints one JSON line a mask: {"topic":, "seq":, "pixels":}, counted from the payload (raw or deflate).
import { inflateSync } from "node:zlib";
import { Subscriber } from "zeromq";

const [endpoint, prefix, wanted] = process.argv.slice(2);
const socket = new Subscriber({ receiveBufferSize: 256 * 1024, receiveHighWaterMark: 64 });
socket.connect(endpoint);
socket.subscribe(prefix);

// Bits are most significant first; rows are padded to whole bytes.
function count(bits, width, height) {
  const rowBytes = Math.ceil(width / 8);
  let pixels = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) pixels += (bits[y * rowBytes + (x >> 3)] >> (7 - (x & 7))) & 1;
  }
  return pixels;
}

function decode(header, payload) {
  const size = Math.ceil(header.width / 8) * header.height;
  const bits =
    header.encoding === "deflate" ? inflateSync(payload, { maxOutputLength: size })
    : header.encoding === "raw" ? payload
    : null;
  if (bits === null) throw new Error(`encoding ${header.encoding} is not read by this client`);
  if (bits.length !== size) throw new Error(`${bits.length} bytes, not ${size}`);
  return bits;
}

let left = Number(wanted);
for await (const [topic, json, payload] of socket) {
  // Large integers (nanoseconds) lose digits in a JavaScript number: 2^53 ns is only 104 days.
  const header = JSON.parse(json.toString());
  if (!header.v.startsWith("1.")) {
    console.error(`skipped: version ${header.v}`); // another major version: report and skip
    continue;
  }
  const pixels = count(decode(header, payload), header.width, header.height);
  console.log(JSON.stringify({ topic: topic.toString(), seq: header.seq, pixels }));
  if (--left === 0) break;
}
socket.close();
