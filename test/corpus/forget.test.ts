/** Rules that are let go of between walks (World.forget) are the same when they come back. */
import {expect} from 'chai'
import {buildWorld} from '../../src/engine.js'
import {simulate, type SimulatePacket} from '../../src/simulate.js'
import {corpusSnapshot, truthOf} from '../helpers/corpus.js'

const EVERY = 23

describe('forgetting rules between walks', () => {
  for (const cluster of ['k136-iptables-v4', 'k136-ipvs-v4', 'k136-nftables-v4'])
    it(`changes nothing: ${cluster}`, async () => {
      const snapshot = await corpusSnapshot(cluster)
      const [keeping, forgetting] = [buildWorld(snapshot), buildWorld(snapshot)]
      const packets = (await truthOf(cluster)).filter((_, at) => at % EVERY === 0)
      for (const [at, {origin, originIP, node, dst, proto}] of packets.entries()) {
        const [kind, id = ''] = [origin.slice(0, origin.indexOf(':')), origin.slice(origin.indexOf(':') + 1)]
        const from = kind === 'external' ? {external: originIP} : kind === 'node' ? {node: id} : {pod: id}
        const packet: SimulatePacket = {
          id: String(at),
          from,
          to: dst,
          proto,
          ...(kind === 'external' ? {enter: node} : {}),
        }
        const expected = simulate(keeping, packet)
        forgetting.forget()
        expect(simulate(forgetting, packet)).to.deep.equal(expected)
      }
      expect(packets.length).to.be.greaterThan(30)
    })
})
