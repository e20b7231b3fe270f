import {expect} from 'chai'
import {nodesThatMatter} from '../../../src/select.js'
import {snapshotFromFiles, type Snapshot} from '../../../src/snapshot/snapshot.js'

const items = (...list: object[]): string => JSON.stringify({items: list})

function cluster(nodes: number): Snapshot {
  const endpoint = (at: number): object => ({
    addresses: [`10.1.${at}.2`],
    nodeName: `n${at}`,
    conditions: {ready: at === 3},
  })
  return snapshotFromFiles(
    new Map([
      ['api/nodes.json', items(...Array.from({length: nodes}, (_, at) => ({metadata: {name: `n${at}`}})))],
      [
        'api/services.json',
        items({metadata: {name: 'web', namespace: 'd'}, spec: {clusterIP: '10.96.0.1', ports: [{port: 80}]}}),
      ],
      [
        'api/endpointslices.json',
        items({
          metadata: {name: 'web-1', namespace: 'd', labels: {'kubernetes.io/service-name': 'web'}},
          addressType: 'IPv4',
          ports: [{port: 80}],
          endpoints: [endpoint(3), endpoint(7)],
        }),
      ],
      [
        'api/pods.json',
        items({
          metadata: {name: 'cli', namespace: 'd'},
          spec: {nodeName: 'n9', containers: []},
          status: {phase: 'Running'},
        }),
      ],
    ]),
  )
}

describe('the nodes that are read for one Service', () => {
  const chosen = (nodes: number, from?: string): string[] | undefined => {
    const snapshot = cluster(nodes)
    return nodesThatMatter(snapshot, snapshot.cluster.services[0]!, from)
  }

  it('are all where there are few', () => expect(chosen(16)).to.equal(undefined))
  it('are those with endpoints, ready or not, and one without', () =>
    expect(chosen(17)).to.deep.equal(['n0', 'n3', 'n7']))
  it('and the client’s', () => {
    expect(chosen(40, 'pod/cli')).to.deep.equal(['n0', 'n3', 'n7', 'n9'])
    expect(chosen(40, 'pod/d/cli')).to.deep.equal(['n0', 'n3', 'n7', 'n9'])
    expect(chosen(40, 'node/n12')).to.deep.equal(['n0', 'n3', 'n7', 'n12'])
  })
})
