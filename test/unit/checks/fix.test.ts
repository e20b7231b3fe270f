/** Commands to type: with the names of the finding, and with nothing in them that a shell would take for more. */
import {expect} from 'chai'
import fc from 'fast-check'
import {CODES} from '../../../src/checks/codes.js'
import {fixFor, type FixFacts} from '../../../src/checks/fix.js'

const policy = (message: string, source: string): string =>
  fixFor('{accept}', {message, evidence: [{source, line: 1, text: ''}]})

describe('fixes', () => {
  const cases: [template: string, facts: FixFacts, fix: string][] = [
    ['kubectl describe service {service}', {services: ['shop/web']}, 'kubectl describe service -n shop web'],
    ['kubectl describe service {service}', {services: ['a/b', 'c/d']}, 'kubectl describe service -n NAMESPACE NAME'],
    ['kubectl describe service {service}', {}, 'kubectl describe service -n NAMESPACE NAME'],
    ['kubectl drain {node}', {node: 'node-1.example.com'}, 'kubectl drain node-1.example.com'],
    ['conntrack -D --orig-dst {address}', {frontends: ['10.96.0.10:53']}, 'conntrack -D --orig-dst 10.96.0.10'],
    ['conntrack -D --orig-dst {address}', {frontends: ['[fd00::a]:53']}, 'conntrack -D --orig-dst fd00::a'],
    [
      'kubectl describe ingress {ingress}',
      {evidence: [{source: 'api/ingresses.json', line: 3, text: 'x', object: 'shop/front'}]},
      'kubectl describe ingress -n shop front',
    ],
    [
      'kubectl describe {route}',
      {evidence: [{source: 'api/tcproutes.json', line: 3, text: 'x', object: 'shop/db'}]},
      'kubectl describe tcproute -n shop db',
    ],
    [
      'sysctl -w {sysctl}=1',
      {evidence: [{source: 'nodes/a/sysctl.txt', line: 1, text: 'net.bridge.bridge-nf-call-ip6tables = 0'}]},
      'sysctl -w net.bridge.bridge-nf-call-ip6tables=1',
    ],
  ]
  for (const [template, facts, fix] of cases) it(fix, () => expect(fixFor(template, facts)).to.equal(fix))

  it('lets a chain accept with the tool of its dump', () => {
    expect(policy('the policy DROP of filter/FORWARD on n drops it', 'nodes/n/iptables-nft-save.txt')).to.equal(
      'iptables-nft -t filter -P FORWARD ACCEPT',
    )
    expect(
      policy('the policy DROP of legacy mangle/INPUT on n drops it', 'nodes/n/ip6tables-legacy-save.txt'),
    ).to.equal('ip6tables-legacy -t mangle -P INPUT ACCEPT')
    expect(policy('the policy drop of inet fw/forward on n drops it', 'nodes/n/nft.txt')).to.equal(
      "nft 'chain inet fw forward { policy accept; }'",
    )
  })

  it('a name that is none of Kubernetes’ stays out of commands', () => {
    for (const name of ['$(reboot)', 'a;b', 'a b', '-rf', 'a\nb', '`x`', "'", '../x', ''])
      expect(fixFor('{service} {node}', {services: [`shop/${name}`], node: name}), name).to.equal('-n shop NAME NODE')
  })

  it('no finding brings a character of a shell into any fix', () => {
    const hostile = fc.string({
      unit: fc.constantFrom('a', '$', '(', ')', '`', ';', '|', '&', '\n', '\u001b', "'", '"', '/'),
    })
    fc.assert(
      fc.property(hostile, hostile, (one, two) => {
        const facts: FixFacts = {
          services: [`${one}/${two}`],
          node: one,
          frontends: [two],
          message: `the policy DROP of ${one}/${two} on n; policy drop of inet ${one}/${two}`,
          evidence: ['pods', 'ingresses', 'httproutes', 'networkpolicies', 'endpointslices'].map((name) => ({
            source: `api/${name}.json`,
            line: 1,
            text: `net.${one} = 1`,
            object: `${two}/${one}`,
          })),
        }
        for (const {fix} of Object.values(CODES)) {
          const [general, filled] = [fixFor(fix), fixFor(fix, facts)]
          for (const char of '$`\u001b\n') expect(filled.split(char).length).to.equal(general.split(char).length)
        }
      }),
    )
  })

  it('every word of the registry is known', () => {
    for (const [name, {fix}] of Object.entries(CODES)) expect(fixFor(fix), name).not.to.match(/\{\w+\}/)
  })
})
