import {expect} from 'chai'
import {fate} from '../../helpers/node.js'

const entry = (sport: number, state: string, port = 9100, source = '198.51.100.7'): string =>
  `tcp      6 118 ${state} src=${source} dst=192.0.2.11 sport=${sport} dport=${port} ${state === 'SYN_SENT' ? '[UNREPLIED] ' : ''}src=192.0.2.11 dst=${source} sport=${port} dport=${sport} mark=0 use=1`
const LISTENS = 'tcp   LISTEN 0      5            0.0.0.0:9100      0.0.0.0:*    users:(("server",pid=7,fd=3))\n'
const outcome = (...entries: string[]): string =>
  Object.keys(
    fate({ss: LISTENS, files: {'conntrack.txt': `${entries.join('\n')}\n`}}, {to: '192.0.2.11:9100'}).outcomes,
  ).join(' ')

describe('a process of the node that listens and does not answer', () => {
  it('is delivered to while nothing speaks against it', () => {
    expect(outcome(entry(1001, 'TIME_WAIT'))).to.equal('delivered')
    // one may have begun a moment ago
    expect(outcome(entry(1001, 'SYN_SENT'))).to.equal('delivered')
  })
  it('is unknown when connections of the same client to the same port wait for it', () =>
    expect(outcome(entry(1001, 'SYN_SENT'), entry(1002, 'SYN_SENT'), entry(1003, 'TIME_WAIT'))).to.equal('unknown'))
  it('other clients and ports are not this one', () =>
    expect(
      outcome(entry(1001, 'SYN_SENT'), entry(1002, 'SYN_SENT', 9200), entry(1003, 'SYN_SENT', 9100, '198.51.100.8')),
    ).to.equal('delivered'))
})
