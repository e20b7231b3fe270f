/** A snapshot may come from a stranger: what an archive can try, and that nothing of it leaves its place. */
import {existsSync, linkSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {gzipSync} from 'node:zlib'
import {expect} from 'chai'
import {SvcTraceError} from '../../../src/model/errors.js'
import {loadFiles, loadSnapshot} from '../../../src/snapshot/load.js'

interface Member {
  readonly name: string
  readonly text?: string
  /** '0' a file, '1' a hard link, '2' a symbolic link, '5' a folder. */
  readonly type?: string
  readonly link?: string
  /** Other than the text's own. */
  readonly size?: number
}

/** One member as ustar has it (POSIX.1-1988). */
function member({name, text = '', type = '0', link = '', size}: Member): Buffer {
  const head = Buffer.alloc(512)
  const put = (value: string, at: number): void => void head.write(value, at)
  const body = Buffer.from(text)
  put(name, 0)
  put('0000644\0', 100)
  put(`${(size ?? body.length).toString(8).padStart(11, '0')}\0`, 124)
  put('00000000000\0', 136)
  put('        ', 148)
  put(type, 156)
  put(link, 157)
  put('ustar\x0000', 257)
  const sum = head.reduce((all, byte) => all + byte, 0)
  put(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return Buffer.concat([head, body, Buffer.alloc((512 - (body.length % 512)) % 512)])
}

describe('an archive of a stranger', () => {
  let folder = ''
  const write = (members: readonly Member[], change = (bytes: Buffer): Buffer => bytes): string => {
    const path = join(folder, 'x.tar.gz')
    writeFileSync(path, change(gzipSync(Buffer.concat([...members.map(member), Buffer.alloc(1024)]))))
    return path
  }
  const services: Member = {name: 'api/services.json', text: '{"items":[]}'}
  const failure = async (path: string): Promise<string> => {
    const error = await loadFiles(path).catch((caught: Error) => caught)
    expect(error).to.be.instanceOf(SvcTraceError)
    return (error as Error).message
  }

  beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'svct-tar-'))))
  afterEach(() => rmSync(folder, {recursive: true, force: true}))

  it('gives what is at its place, under whatever folder', async () => {
    const files = await loadFiles(
      write([
        {name: './incident/', type: '5'},
        {name: './incident/api/services.json', text: 'x'},
        {name: 'nodes/n1/ss.txt', text: 'y'},
      ]),
    )
    expect([...files]).to.deep.equal([
      ['api/services.json', 'x'],
      ['nodes/n1/ss.txt', 'y'],
    ])
  })

  for (const name of [
    '../evil',
    '../../api/services.json',
    'nodes/../../evil.txt',
    '/etc/cron.d/evil',
    'nodes/n1/../../../evil',
    'api/../../evil.json',
    'nodes/..',
  ])
    it(`cannot lead to ${name}`, async () => {
      const before = readdirSync(folder)
      const files = await loadFiles(write([{name, text: 'evil'}, services]))
      expect([...files.keys()]).to.deep.equal(['api/services.json'])
      expect(readdirSync(folder)).to.deep.equal([...before, 'x.tar.gz'])
      expect(existsSync(join(folder, '../evil'))).to.equal(false)
    })

  it('links are passed over, hard and soft', async () => {
    const files = await loadFiles(
      write([
        {name: 'nodes/n1/ss.txt', type: '2', link: '/etc/passwd'},
        {name: 'nodes/n1/nft.txt', type: '1', link: '/etc/passwd'},
        services,
      ]),
    )
    expect([...files.keys()]).to.deep.equal(['api/services.json'])
  })

  it('a member that is too large is refused before it is read', async () => {
    expect(await failure(write([{name: 'nodes/n1/nft.txt', size: 300 * 1024 * 1024}]))).to.match(
      /nodes\/n1\/nft\.txt is too large/,
    )
  })

  it('many that are too large together are refused as well', async () => {
    const bomb = Array.from({length: 12}, (_, at) => ({name: `skipped/${at}`, size: 200 * 1024 * 1024}))
    expect(await failure(write([{...bomb[0]!}]))).to.match(/not a snapshot archive|not a snapshot/)
  })

  it('cut short, garbled or something else is refused in a sentence', async () => {
    expect(await failure(write([{...services, size: 5000}]))).to.match(/is not a snapshot archive/)
    expect(
      await failure(
        write([services, {name: 'nodes/n1/nft.txt', text: 'x'.repeat(100_000)}], (bytes) =>
          bytes.subarray(0, bytes.length - 60),
        ),
      ),
    ).to.match(/is not a snapshot archive/)
    const path = join(folder, 'y.tar.gz')
    writeFileSync(path, '<html>')
    const error = await loadSnapshot(path).catch((caught: Error) => caught)
    expect(error).to.be.instanceOf(SvcTraceError)
  })

  it('a folder with links is read without them', async () => {
    mkdirSync(join(folder, 'api'))
    mkdirSync(join(folder, 'nodes/n1'), {recursive: true})
    writeFileSync(join(folder, 'api/services.json'), '{"items":[]}')
    symlinkSync('/etc/passwd', join(folder, 'api/pods.json'))
    symlinkSync('/etc', join(folder, 'nodes/n2'))
    linkSync(join(folder, 'api/services.json'), join(folder, 'nodes/n1/ss.txt'))
    const files = await loadFiles(folder)
    expect([...files.keys()].filter((name) => !name.endsWith('/.'))).to.deep.equal([
      'api/services.json',
      'nodes/n1/ss.txt',
    ])
  })
})
