import com.sun.net.httpserver.HttpServer;
import java.io.RandomAccessFile;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicLong;

/** What a Java program can have going on at once; every GET is answered with how far everything is. */
public class Server {
    public static void main(String[] args) throws Exception {
        List<AtomicLong> counts = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            AtomicLong count = new AtomicLong();
            counts.add(count);
            Thread thread = new Thread(() -> {
                while (true) {
                    count.incrementAndGet();
                    try { Thread.sleep(5); } catch (InterruptedException e) { return; }
                }
            });
            thread.setDaemon(true);
            thread.start();
        }
        AtomicLong ticks = new AtomicLong(), requests = new AtomicLong();
        Executors.newScheduledThreadPool(1).scheduleAtFixedRate(ticks::incrementAndGet, 0, 10, TimeUnit.MILLISECONDS);

        RandomAccessFile file = new RandomAccessFile("/srv/mapped", "rw");
        MappedByteBuffer mapped = file.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, 4096);

        ServerSocket listener = new ServerSocket(0);
        Socket near = new Socket("127.0.0.1", listener.getLocalPort());
        Socket far = listener.accept();

        HttpServer server = HttpServer.create(new InetSocketAddress(8000), 0);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/", exchange -> {
            long request = requests.incrementAndGet();
            mapped.putLong(0, request);
            near.getOutputStream().write((int) (request & 0x7f));
            int heard = far.getInputStream().read();
            byte[][] garbage = new byte[64][];
            for (int i = 0; i < garbage.length; i++) garbage[i] = new byte[1 << 16];
            garbage = null;
            System.gc();
            StringBuilder text = new StringBuilder("{\"requests\":" + request + ",\"ticks\":" + ticks + ",\"heard\":" + heard
                + ",\"mapped\":" + mapped.getLong(0) + ",\"counts\":" + counts + "}");
            byte[] body = text.toString().getBytes();
            exchange.getResponseHeaders().set("Content-Length", "" + body.length);
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
