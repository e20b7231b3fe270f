import {constants, createGunzip} from 'node:zlib'
import {NodeUnreachable} from './transport.js'

/** What one node may send in all; a text of more than half a gigabyte is none that V8 can hold. */
const MOST = 256 * 1024 * 1024

/** The collector's word for what follows it. */
const COMPRESSED = '@svc-trace gzip\n'
/** Its first word where nothing is compressed. */
const PLAIN = '@svc-trace 1\n'
const NEWLINE = 10

/** Behind the collector's word, which is a line of its own; a dump that holds the same comes after the first word. */
function beginOfCompressed(sent: Buffer): number | undefined {
  const plain = sent.indexOf(PLAIN)
  for (let at = sent.indexOf(COMPRESSED); at >= 0 && !(plain >= 0 && plain < at); at = sent.indexOf(COMPRESSED, at + 1))
    if (at === 0 || sent[at - 1] === NEWLINE) return at + COMPRESSED.length
  return undefined
}

/** What the collector printed; what it compressed is unpacked, up to where it ends or is damaged. */
export function unpack(sent: Buffer): Promise<string> {
  const at = beginOfCompressed(sent)
  if (at === undefined) return Promise.resolve(sent.toString('utf8'))
  const output = new Output()
  return new Promise((resolve, reject) => {
    const gunzip = createGunzip({finishFlush: constants.Z_SYNC_FLUSH})
    gunzip.on('data', (chunk: Buffer) => {
      if (output.add(chunk)) return
      gunzip.destroy()
      reject(Output.tooBig())
    })
    for (const event of ['end', 'error']) gunzip.on(event, () => resolve(output.bytes.toString('utf8')))
    gunzip.end(sent.subarray(at))
  })
}

/** What a node sends, as long as it is not too much. */
export class Output {
  private readonly chunks: Buffer[] = []
  private size = 0

  /** False: it was too much, nothing of it is kept any more. */
  add(chunk: Buffer): boolean {
    this.size += chunk.length
    if (this.size > MOST) this.chunks.length = 0
    else this.chunks.push(chunk)
    return this.size <= MOST
  }

  get bytes(): Buffer {
    return Buffer.concat(this.chunks)
  }

  /** Whether the collector has begun to speak. */
  get begun(): boolean {
    const {bytes} = this
    return bytes.includes(PLAIN) || bytes.includes(COMPRESSED)
  }

  /** What to say when it was too much. */
  static tooBig(): NodeUnreachable {
    return new NodeUnreachable(
      `the node sends more than ${MOST / 1024 / 1024} MB`,
      'look at the size of its tables: nft list ruleset | wc -c; conntrack -C',
    )
  }
}
