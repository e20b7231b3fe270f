/** What of a node is hidden from a walk, family by family. */
import {expect} from 'chai'
import {findGaps} from '../../../src/dataplane/gaps.js'
import {snapshotFromFiles} from '../../../src/snapshot/snapshot.js'
import {oneNode} from '../../helpers/node.js'

function gapsOf(files: ReadonlyMap<string, string>, family: 4 | 6): string[] {
  const state = snapshotFromFiles(files).nodes.get('n1')!
  return findGaps(state, family, {unasked: undefined, unseen: undefined}).map(({state: how, key}) => `${how} ${key}`)
}

describe('what is hidden from a walk', () => {
  for (const [file, hidden, open] of [
    ['ip-rule.json', 4, 6],
    ['ip-rule6.json', 6, 4],
  ] as const)
    it(`${file} that failed hides the policy rules of IPv${hidden} only`, () => {
      const unread = (family: 4 | 6): boolean => {
        const all = oneNode({files: {'ip-rule6.json': '[]'}})
        all.delete(`nodes/n1/${file}`)
        all.set('nodes/n1/rc.txt', all.get('nodes/n1/rc.txt')!.replace(`${file} rc=0`, `${file} rc=1`))
        return gapsOf(all, family).includes('unreadable policy rules')
      }
      expect([unread(hidden), unread(open)]).to.deep.equal([true, false])
    })

  const chains = (name: string): string =>
    `*nat\n:PREROUTING ACCEPT [0:0]\n:${name} - [0:0]\n-A PREROUTING -j ${name}\nCOMMIT\n`
  for (const [name, chain] of [
    ['Cilium', 'CILIUM_PRE_nat'],
    ['Antrea', 'ANTREA-PREROUTING'],
    ['OVN-Kubernetes', 'OVN-KUBE-NODEPORT'],
  ] as const) {
    const hidden = (files: Readonly<Record<string, string>>): boolean =>
      gapsOf(oneNode({files: {'iptables-save.txt': chains(chain), ...files}}), 4).some((gap) =>
        gap.startsWith('unreadable hidden'),
      )
    it(`${name}'s chains show it where no device is listed`, () =>
      expect(hidden({'ip-link.json': '[]', 'ip-addr.json': '[]'})).to.equal(true))
    it(`${name}'s chains are left behind where its devices are gone`, () => expect(hidden({})).to.equal(false))
  }
})
