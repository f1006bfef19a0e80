package kkv.bench;

import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.state.KeyValueBytesStoreSupplier;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.Stores;

/**
 * Kafka Streams' own answer to "a topic in every pod": a GlobalKTable, all settings left at their defaults. It prints
 * "ready" once the table is restored and can be queried. Arguments: bootstrap, topic, "memory" or "rocksdb", an empty
 * directory for RocksDB.
 */
public final class GlobalTable {
    private GlobalTable() {}

    public static void main(String[] args) throws Exception {
        String topic = args[1];
        Properties p = new Properties();
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, "kkv-bench-" + ProcessHandle.current().pid());
        p.put(StreamsConfig.STATE_DIR_CONFIG, args[3]);

        KeyValueBytesStoreSupplier supplier = args[2].equals("memory")
            ? Stores.inMemoryKeyValueStore("table")
            : Stores.persistentTimestampedKeyValueStore("table");
        StreamsBuilder builder = new StreamsBuilder();
        builder.globalTable(topic, Consumed.with(Serdes.Bytes(), Serdes.ByteArray()),
            Materialized.<Bytes, byte[]>as(supplier).withKeySerde(Serdes.Bytes()).withValueSerde(Serdes.ByteArray()));

        KafkaStreams streams = new KafkaStreams(builder.build(), p);
        CountDownLatch running = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) {
                running.countDown();
            }
        });
        streams.start();
        running.await();
        long keys = streams.store(StoreQueryParameters.fromNameAndType("table", QueryableStoreTypes.<Bytes, byte[]>keyValueStore()))
            .approximateNumEntries();
        System.out.println("ready keys=" + keys);
        System.out.flush();
        Thread.currentThread().join();
    }
}
