import {join} from 'node:path'
import {expect} from 'chai'
import {allRoutes, backendPort} from '../../src/discovery/ingress.js'
import {buildWorld} from '../../src/engine.js'
import {findService} from '../../src/select.js'
import {loadSnapshot} from '../../src/snapshot/load.js'
import {traceIngress} from '../../src/trace-ingress.js'
import {trace, type TraceResult} from '../../src/trace.js'

const ROOT = join(import.meta.dirname, '../..')

for (const name of ['missing-nodeport', 'healthy-ipvs', 'dormant-nftables'])
  describe(`every way to a Service of ${name}`, () => {
    it('headless, ExternalName, StatefulSet-like and plain Services trace to their end', async () => {
      const snapshot = await loadSnapshot(join(ROOT, `examples/${name}.tar.gz`))
      const world = buildWorld(snapshot)
      const traced = (id: string): TraceResult => trace(snapshot, world, {service: findService(snapshot, id)})
      const db = traced('shop/db')
      expect(db.paths.length).to.be.above(0)
      expect(new Set(db.paths.map(({frontend, outcome}) => `${frontend.kind} ${outcome}`))).to.deep.equal(
        new Set(['endpoint delivered']),
      )
      expect(db.discovery.records.map(({name: own}) => own)).to.include('db-0.db.shop.svc.cluster.local')
      expect(traced('shop/extname').discovery.cname).to.deep.equal({names: ['db.example.com'], end: 'outside'})
      for (const {id} of snapshot.cluster.services) expect(traced(id).service.id).to.equal(id)
    }).timeout(60_000)

    it('Ingresses lead to their backends', async () => {
      const snapshot = await loadSnapshot(join(ROOT, `examples/${name}.tar.gz`))
      const world = buildWorld(snapshot)
      for (const route of allRoutes(snapshot.cluster)) {
        const service = snapshot.cluster.services.find(({id}) => id === route.service)
        const port = service && backendPort(service, route)
        if (!service || !port) continue
        const {backend} = traceIngress(snapshot, world, {route, service, port, options: {}})
        expect(backend.paths.length, route.ingress).to.be.above(0)
      }
    }).timeout(30_000)
  })
