import {NodeUnreachable} from './transport.js'

/** What one node may send in all; a text of more than half a gigabyte is none that V8 can hold. */
const MOST = 256 * 1024 * 1024

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

  get text(): string {
    return Buffer.concat(this.chunks).toString('utf8')
  }

  /** What to say when it was too much. */
  static tooBig(): NodeUnreachable {
    return new NodeUnreachable(
      `the node sends more than ${MOST / 1024 / 1024} MB`,
      'look at the size of its tables: nft list ruleset | wc -c; conntrack -C',
    )
  }
}
