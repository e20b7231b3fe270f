import {setTimeout as sleep} from 'node:timers/promises'
import {expect} from 'chai'
import {limited} from '../../../src/util/limited.js'

describe('a signal with a limit', () => {
  const fill = (): unknown => Array.from({length: 300_000}, (_, at) => ({at}))

  it('trips after its time, however much garbage is collected meanwhile', async () => {
    const outer = new AbortController()
    let tripped = 0
    for (let at = 0; at < 50; at++) limited(outer.signal, 150).addEventListener('abort', () => tripped++)
    for (let round = 0; round < 20; round++) {
      fill()
      await sleep(10)
    }
    await sleep(100)
    expect(tripped).to.equal(50)
    expect(outer.signal.aborted).to.equal(false)
  })

  it('trips with the other one, at once where that has tripped', () => {
    const outer = new AbortController()
    const one = limited(outer.signal, 60_000)
    expect(one.aborted).to.equal(false)
    outer.abort()
    expect(one.aborted).to.equal(true)
    expect(limited(outer.signal, 60_000).aborted).to.equal(true)
  })
})
