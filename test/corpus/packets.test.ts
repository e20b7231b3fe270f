import {expect} from 'chai'
import {buildWorld} from '../../src/engine.js'
import {simulate} from '../../src/simulate.js'
import {agreement} from '../helpers/agreement.js'
import {clusters, corpusSnapshot, faultsOf, listenersOf, truthOf, type Truth} from '../helpers/corpus.js'

/** Each is explained in docs/accuracy.md: what the dumps cannot show. */
const EXPLAINED: Readonly<Record<string, number>> = {
  'k136-nftables-v4': 2,
  'k136-nftables-v4/admin-dnat-hijack': 6,
  'k136-nftables-v4/admin-redirect-hijack': 6,
  'k136-nftables-v4/iptables-mode-leftovers': 14,
  'k136-nftables-v4/admin-nft-dnat-hijack': 1,
  'k136-nftables-v4/admin-nft-drop-prerouting': 1,
  'k136-nftables-v4/local-listener-on-nodeport': 1,
}

function packetOf({origin, originIP, node, dst, proto}: Truth): object {
  const colon = origin.indexOf(':')
  const [kind, name] = [origin.slice(0, colon), origin.slice(colon + 1)]
  const from = kind === 'external' ? {external: originIP} : kind === 'node' ? {node: name} : {pod: name}
  return {id: '1', from, to: dst, proto, ...(kind === 'external' ? {enter: node} : {})}
}

async function disagreements(cluster: string, fault?: string): Promise<string[]> {
  const world = buildWorld(await corpusSnapshot(cluster, fault))
  const listeners = await listenersOf(cluster)
  return (await truthOf(cluster, fault)).flatMap((truth) => {
    const verdict = agreement(truth, simulate(world, packetOf(truth)), listeners)
    return verdict === 'agree' ? [] : [`${truth.origin} → ${truth.dst}/${truth.proto} (${truth.service}): ${verdict}`]
  })
}

describe('real packets of real clusters', () => {
  it('holds at least the clusters of all proxy modes', async () => {
    expect(await clusters()).to.include.members([
      'k136-iptables-v4',
      'k136-ipvs-v4',
      'k136-nftables-v4',
      'k136-iptables-dual',
      'k130-nftables-v4',
      'k120-iptables-v4',
      'k120-iptables-dual',
      'k120-ipvs-v4',
      'k120-userspace-v4',
    ])
  })

  for (const cluster of [
    'k136-iptables-v4',
    'k136-ipvs-v4',
    'k136-nftables-v4',
    'k136-iptables-dual',
    'k130-nftables-v4',
    'k120-iptables-v4',
    'k120-iptables-dual',
    'k120-ipvs-v4',
    'k120-userspace-v4',
  ]) {
    it(`${cluster}: every packet of the healthy cluster is predicted`, async () => {
      expect(await disagreements(cluster)).to.have.length.at.most(EXPLAINED[cluster] ?? 0)
    })

    it(`${cluster}: every packet of its faults is predicted`, async () => {
      for (const fault of await faultsOf(cluster)) {
        const found = await disagreements(cluster, fault)
        expect(found, `${fault}:\n${found.join('\n')}\n`).to.have.length.at.most(EXPLAINED[`${cluster}/${fault}`] ?? 0)
      }
    }).timeout(120_000)
  }
})
